"""Limits on what a session may ask of a server, and counts of what it asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from apportion.errors import ServerError, counted

__all__ = ["Gate", "Meter", "Price"]

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a server, in any currency.

    Attributes:
        per_million: price of a million tokens that the model reads or writes.
        most: the most that may be spent; ``None`` for no limit.
    """

    per_million: float
    most: float | None


class Meter:
    """Counts requests and tokens, and refuses requests beyond a limit.

    Args:
        max_requests: the most requests that may be sent; ``None`` for no limit.
        price: what the server charges, if it is known.

    Attributes:
        price: the same.
        requests: requests that were sent, retries included.
        tokens: tokens that the model read and wrote, as the server counts them, or else as they were sent.
    """

    def __init__(self, max_requests: int | None = None, price: Price | None = None) -> None:
        self.requests = self.tokens = 0
        self._max_requests, self.price = max_requests, price
        self._expected = 0
        self._seconds = 0.0
        self._lock = threading.Lock()

    @property
    def cost(self) -> float:
        """Price of the tokens so far; 0 if no price is known."""
        return 0.0 if self.price is None else self.tokens * self.price.per_million / MILLION

    @property
    def pace(self) -> float:
        """Seconds from requests to their answers, for each token."""
        return self._seconds / max(1, self.tokens)

    @contextmanager
    def paid(self, tokens: int) -> Iterator[Callable[[object, float], None]]:
        """Count a request that is sent now, and reserve the price of its tokens until it is answered.

        Yields:
            A function that takes the server's ``usage`` and the seconds that the request took. What is not known is
            counted as it was sent. A request for which it is not called was not read.

        Raises:
            ServerError: it would go beyond a limit.
        """
        billed, took = 0, 0.0

        def bill(usage: object, seconds: float) -> None:
            nonlocal billed, took
            total = usage.get("total_tokens") if isinstance(usage, Mapping) else None
            billed, took = total if type(total) is int and total > 0 else tokens, seconds

        with self._lock:
            self._check(tokens)
            self.requests += 1
            self._expected += tokens
        try:
            yield bill
        finally:
            with self._lock:
                self._expected -= tokens
                self.tokens += billed
                self._seconds += took

    def _check(self, tokens: int) -> None:
        if self._max_requests is not None and self.requests >= self._max_requests:
            raise ServerError(
                f"The limit of {counted(self._max_requests, 'request')} is reached (max_requests). Raise it to go on."
            )
        price = self.price
        if price is None or price.most is None:
            return
        then = (self.tokens + self._expected + tokens) * price.per_million / MILLION
        if then > price.most:
            raise ServerError(
                f"The next request would bring the cost to {then:.4g}, above the limit of {price.most:.4g} (max_cost); "
                f"{self.cost:.4g} is spent. Raise it to go on."
            )


class Gate:
    """Lets a number of requests pass at once: fewer after the server was busy, and slowly more again.

    Args:
        lanes: the most requests at once.

    Attributes:
        limit: requests that may pass at the moment.
        fewest: the lowest limit so far.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self.limit = float(lanes)
        self.fewest = float(lanes)
        self._inside = 0
        self._changed = threading.Condition()

    @contextmanager
    def passed(self) -> Iterator[None]:
        """Wait for a turn, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside < int(self.limit))
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def busy(self) -> None:
        """Halve the limit: the server refused a request because it is busy."""
        with self._changed:
            self.limit = max(1.0, self.limit / 2)
            self.fewest = min(self.fewest, self.limit)

    def forget(self) -> None:
        """Begin anew: what was busy before does not count."""
        with self._changed:
            self.limit = self.fewest = float(self._lanes)

    def served(self) -> None:
        """Raise the limit, by one for each round of answers."""
        with self._changed:
            self.limit = min(float(self._lanes), self.limit + 1 / self.limit)
            self._changed.notify_all()

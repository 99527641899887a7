"""HTTP requests to a server: several at once over connections that stay open, tried again while the server is busy."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_all, stop_any, stop_base, stop_when_event_set
from tenacity.wait import wait_random_exponential

from apportion.errors import ServerError, counted, shown
from apportion_backends.openai.address import KEY_VARIABLE, Address, Key
from apportion_backends.openai.limits import Gate, Meter

__all__ = ["Client", "Patience", "RefusedError"]

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""
REFUSALS = frozenset({400, 413, 422})
"""Answers that are about the content of a request."""
LACKING = frozenset({404, 405, 500, 501})
"""Answers to a trial of what the server may not have."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Bounds of the back-off in seconds; each wait is drawn at random below its bound."""
FEWEST_TRIES = 3
CONNECT_SECONDS = 10.0
QUOTED = 300
"""Characters of a server's message that are shown."""


class RefusedError(Exception):
    """The server refused the content of a request.

    Args:
        status: its status code.
        message: its message.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class _PassingError(Exception):
    """The request failed in a way that may pass.

    Args:
        reason: a sentence about it, without a full stop.
        after: seconds to wait, if the server said so.
        lost: the connection failed.
    """

    def __init__(self, reason: str, after: float | None = None, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.after, self.lost = after, lost


@dataclass(frozen=True, slots=True)
class Patience:
    """Time for which a request is tried.

    Attributes:
        timeout: seconds that the server may take to answer.
        seconds: seconds over which a failed request is tried again; 0 to try once.
    """

    timeout: float
    seconds: float


class Client:
    """Sends requests to one server, from any number of threads.

    Args:
        address: the server.
        key: its key, if it has one.
        gate: lets requests pass.
        meter: counts them.
        patience: how long they are tried.

    Attributes:
        outages: number of times that the server could not be reached.
    """

    def __init__(self, address: Address, key: Key | None, gate: Gate, meter: Meter, patience: Patience) -> None:
        self.address, self.gate, self.meter = address, gate, meter
        self.outages = 0
        self._key, self._patience = key, patience
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._free: list[httpx.Client] = []
        self._all: list[httpx.Client] = []
        self._certificates: ssl.SSLContext | None = None
        self._closed = False
        self._in_flight, self._last = 0, time.monotonic()

    @property
    def idle(self) -> float:
        """Seconds since the last answer; 0 while requests are under way."""
        return 0.0 if self._in_flight else time.monotonic() - self._last

    def get(self, url: str) -> Any:
        """The JSON at an address, tried once; nothing is counted.

        Raises:
            RefusedError: the server refuses it, or has nothing there.
            ServerError: it cannot be reached, or asks for a key.
        """
        try:
            return self._content(self._send("GET", url, None), trial=True)
        except _PassingError as again:
            raise ServerError(f"The server at {self.address.base} does not answer: {again}.") from None

    def text(self, url: str) -> str:
        """The text at an address; empty if the server has none there, or does not answer."""
        try:
            response = self._send("GET", url, None)
        except _PassingError:
            return ""
        return response.text if response.status_code == 200 else ""

    def post(self, url: str, content: Mapping[str, object], tokens: int | None, *, trial: bool = False) -> Any:
        """The JSON that answers a request.

        Args:
            url: where to send it.
            content: what to send, as JSON.
            tokens: number of tokens to read and write, for the limits; ``None`` for a request that is not counted.
            trial: whether the server can do this is not known, so that a missing address or failure is a refusal.

        Raises:
            RefusedError: the server refuses the content.
            ServerError: the server cannot be reached, is busy for too long, refuses the key, does not know the model,
                or answers no JSON; or a limit is reached.
        """
        tries = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=stop_any(stop_when_event_set(self._stopped), self._enough()),
            wait=_wait,
            sleep=sleep_using_event(self._stopped),
            before_sleep=self._before_waiting,
            retry_error_cls=_GaveUpError,
        )
        try:
            found = tries(self._attempt, url, content, tokens, trial)
        except _GaveUpError as last:
            raise self._lost(last) from None
        self.gate.served()
        return found

    def interrupt(self) -> None:
        """Wait no longer: requests under way end soon."""
        self._stopped.set()
        with self._lock:
            everyone, self._all, self._free = self._all, [], []
        for http in everyone:
            http.close()

    def resume(self) -> None:
        """Take requests again after ``interrupt``."""
        self._stopped.clear()

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._closed = True
        self.interrupt()

    def _enough(self) -> stop_base:
        if not self._patience.seconds:
            return stop_after_attempt(1)
        return stop_all(stop_after_delay(self._patience.seconds), stop_after_attempt(FEWEST_TRIES))

    def _attempt(self, url: str, content: Mapping[str, object], tokens: int | None, trial: bool) -> Any:
        with self.gate.passed(), nullcontext() if tokens is None else self.meter.paid(tokens):
            started = time.perf_counter()
            found = self._content(self._send("POST", url, content), trial=trial)
        if tokens is not None:
            usage = found.get("usage") if isinstance(found, Mapping) else None
            self.meter.answered(usage, tokens, time.perf_counter() - started)
        return found

    def _send(self, method: str, url: str, content: Mapping[str, object] | None) -> httpx.Response:
        headers = {} if self._key is None else self._key.headers()
        http = self._taken()
        try:
            return http.request(method, url, json=content, headers=headers)
        except httpx.TimeoutException as error:
            raise _PassingError(f"it took longer than {self._patience.timeout:g} s ({type(error).__name__})") from None
        except (httpx.TransportError, RuntimeError) as error:  # a closed client raises RuntimeError
            if isinstance(error, RuntimeError) and not self._stopped.is_set():
                raise
            self.outages += 1
            raise _PassingError(f"{type(error).__name__}: {error}", lost=True) from None
        except httpx.InvalidURL as error:
            raise ServerError(f"{self.address.base!r} is not the address of a server: {error}.") from None
        finally:
            self._give(http)

    def _taken(self) -> httpx.Client:
        """An HTTP client with a connection of its own: many threads would wait for the pool of one that they share."""
        with self._lock:
            if self._closed:
                raise ServerError("This session is closed; make a new Explainer.")
            self._in_flight += 1
            if self._free:
                return self._free.pop()
            timeout = httpx.Timeout(self._patience.timeout, connect=CONNECT_SECONDS)
            http = httpx.Client(timeout=timeout, follow_redirects=False, verify=self._trust())
            self._all.append(http)
            return http

    def _trust(self) -> ssl.SSLContext | bool:
        """The certificates to trust, which take long to read, and so are read once."""
        if self.address.base.startswith("https") and self._certificates is None:
            self._certificates = httpx.create_ssl_context()
        return self._certificates or False

    def _give(self, http: httpx.Client) -> None:
        with self._lock:
            self._in_flight -= 1
            self._last = time.monotonic()
            if http in self._all:  # else it was closed
                self._free.append(http)

    def _content(self, response: httpx.Response, *, trial: bool) -> Any:
        """The JSON of an answer, or the error that it is."""
        status = response.status_code
        if status == 200:
            try:
                return json.loads(response.content)
            except ValueError:
                raise ServerError(
                    f"The server at {self.address.base} answered something that is not JSON: "
                    f"{self._quoted(response.text)}."
                ) from None
        message = self._quoted(_message(response))
        if status in REFUSALS or (trial and status in LACKING):
            raise RefusedError(status, message)
        if status in BUSY:
            raise _PassingError(f"{status}: {message}", _seconds(response.headers.get("retry-after")))
        raise ServerError(f"{self._status(status)}: {message}.")

    def _status(self, status: int) -> str:
        base = self.address.base
        if status in (401, 403):
            given = "refuses the key" if self._key is not None else "asks for a key"
            how = f"Set the environment variable {KEY_VARIABLE}, or name another variable or a file with "
            return f"The server at {base} {given}. {how}key_variable= or key_file=. It said {status}"
        if status in (404, 405):
            return f"The server at {base} does not have this model, or no completions API there. It said {status}"
        if 300 <= status < 400:
            return f"The server at {base} has moved; give its new address. It said {status}"
        return f"The server at {base} refused a request. It said {status}"

    def _quoted(self, text: str) -> str:
        """A text of the server's for messages: one line, shortened, without the key."""
        line = " ".join(text.split())
        line = line if self._key is None else self._key.without(line)
        return shown(line, QUOTED)

    def _before_waiting(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, _PassingError) and not error.lost:
            self.gate.busy()

    def _lost(self, last: _GaveUpError) -> ServerError:
        """The error of a request that failed as often as it may."""
        tries, reason = last.last_attempt.attempt_number, last.last_attempt.exception()
        if self._stopped.is_set():
            return ServerError("The session was interrupted.")
        often = f" after {counted(tries, 'try', 'tries')}" if tries > 1 else ""
        return ServerError(f"The server at {self.address.base} does not answer{often}: {reason}.")


class _GaveUpError(RetryError):
    """Raised after the last attempt."""


_drawn = wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)


def _wait(state: RetryCallState) -> float:
    """Seconds to wait before the next attempt: what the server said, or else drawn at random from a growing range."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.after if isinstance(error, _PassingError) else None
    return _drawn(state) if asked is None else min(asked, LONGEST_WAIT)


def _seconds(header: str | None) -> float | None:
    """The number of seconds in a ``Retry-After`` header; dates are not read."""
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None


def _message(response: httpx.Response) -> str:
    """The message in an error, in any of the forms that servers use."""
    try:
        content = json.loads(response.content)
    except ValueError:
        return response.text or response.reason_phrase
    while isinstance(content, Mapping):
        for name in ("error", "message", "detail"):
            if content.get(name):
                content = content[name]
                break
        else:
            break
    return str(content)

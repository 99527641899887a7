"""Requests to a server, several at once, tried again while the server is busy."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_random_exponential

from apportion.errors import ServerError, counted, shown
from apportion_backends.openai.address import KEY_VARIABLE, Address, Key
from apportion_backends.openai.connections import Answer, Connections, CutError, LateError
from apportion_backends.openai.limits import Gate, Meter

__all__ = ["Client", "Patience", "RefusedError"]

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed."""
GONE = frozenset({500, 502, 503, 504})
"""Answers of a server, or of what stands before it, that may be starting again."""
REFUSALS = frozenset({400, 413, 422})
"""Answers that are about the content of a request."""
LACKING = frozenset({404, 405, 501})
"""Answers to a trial of what the server may not have."""
TRIALS = 3
"""Number of times that a trial may fail with 500, which may be a passing error, or the engine's way to refuse."""
FIRST_WAIT, LEAST_WAIT, LONGEST_WAIT = 0.5, 0.1, 30.0
"""Bounds of the back-off in seconds: each wait is drawn below a bound that doubles, and is not below the least."""
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
        read: the server may have read the request, and charge for it.
        trial: the refusal that it is if it does not pass.
    """

    def __init__(
        self,
        reason: str,
        after: float | None = None,
        *,
        lost: bool = False,
        read: bool = False,
        trial: RefusedError | None = None,
    ) -> None:
        super().__init__(reason)
        self.after, self.lost, self.read, self.trial = after, lost, read, trial


@dataclass(frozen=True, slots=True)
class Patience:
    """Time for which a request is tried.

    Attributes:
        timeout: seconds from a request to the end of its answer.
        seconds: seconds after a first failure within which a request is tried again; 0 to try once.
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
        patience: time for which they are tried.
    """

    def __init__(self, address: Address, key: Key | None, gate: Gate, meter: Meter, patience: Patience) -> None:
        self.address, self.gate, self.meter = address, gate, meter
        self._key, self._patience = key, patience
        self._stopped = threading.Event()
        self._connections = Connections(patience.timeout, secure=address.base.startswith("https"))
        self._gone = 0

    @property
    def idle(self) -> float:
        """Seconds since the last answer; 0 while requests are under way."""
        return self._connections.idle

    @property
    def outages(self) -> int:
        """Number of times that the server was gone, or may have been: another model may answer now."""
        return self._connections.outages + self._gone

    def get(self, url: str) -> Any:
        """The JSON at an address; tried again while the server is busy, but not if nobody listens. Nothing is counted.

        Raises:
            RefusedError: the server refuses it, or has nothing there.
            ServerError: it cannot be reached, or asks for a key.
        """
        return self._tried("GET", url, None, None, trial=True, listening=False)

    def text(self, url: str) -> str:
        """The text at an address; empty if the server has none there, or does not answer."""
        try:
            answer = self._send("GET", url, None)
        except _PassingError:
            return ""
        return answer.text if answer.status == 200 else ""

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
        found = self._tried("POST", url, content, tokens, trial=trial, listening=True)
        self.gate.served()
        return found

    def interrupt(self) -> None:
        """Wait no longer: requests under way end at once."""
        self._stopped.set()
        self._connections.cut()

    def resume(self) -> None:
        """Take requests again after ``interrupt``."""
        self._stopped.clear()

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._stopped.set()
        self._connections.close()

    def quoted(self, text: str) -> str:
        """A text of the server's for messages: one line, shortened, without the key."""
        line = " ".join(text.split())
        line = line if self._key is None else self._key.without(line)
        return line if len(line) <= QUOTED else f"{line[: QUOTED - 1]}…"

    def _tried(
        self,
        method: str,
        url: str,
        content: Mapping[str, object] | None,
        tokens: int | None,
        *,
        trial: bool,
        listening: bool,
    ) -> Any:
        """The JSON of an answer, after as many attempts as are allowed.

        Args:
            method: of HTTP.
            url: the address.
            content: what to send.
            tokens: as ``post``.
            trial: as ``post``.
            listening: the server has answered before, so that it is waited for if it is gone.
        """
        failed: list[float] = []

        def enough(state: RetryCallState) -> bool:
            error = _error_of(state)
            failed.append(time.monotonic())
            if error is not None and error.trial is not None and state.attempt_number >= TRIALS:
                return True
            late = time.monotonic() - failed[0] >= self._patience.seconds
            return late or self._stopped.is_set() or (error is not None and error.lost and not listening)

        tries = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=enough,
            wait=_wait,
            sleep=sleep_using_event(self._stopped),
            before_sleep=self._before_waiting,
            retry_error_cls=_GaveUpError,
        )
        try:
            return tries(self._attempt, method, url, content, tokens, trial)
        except _GaveUpError as last:
            raise self._lost(last) from None

    def _attempt(
        self, method: str, url: str, content: Mapping[str, object] | None, tokens: int | None, trial: bool
    ) -> Any:
        if tokens is None:
            return self._content(self._send(method, url, content), trial=trial)
        with self.gate.passed(), self.meter.paid(tokens) as bill:
            started = time.perf_counter()
            try:
                found = self._content(self._send(method, url, content), trial=trial)
            except _PassingError as error:
                if error.read:
                    bill(None, time.perf_counter() - started)
                raise
            bill(found.get("usage") if isinstance(found, Mapping) else None, time.perf_counter() - started)
            return found

    def _send(self, method: str, url: str, content: Mapping[str, object] | None) -> Answer:
        headers = {} if self._key is None else self._key.headers()
        try:
            return self._connections.send(method, url, content, headers)
        except LateError as error:
            raise _PassingError(f"it took longer than {self._patience.timeout:g} s ({error})", read=True) from None
        except CutError as error:
            raise _PassingError(self.quoted(str(error)), lost=True, read="Connect" not in str(error)) from None

    def _content(self, answer: Answer, *, trial: bool) -> Any:
        """The JSON of an answer, or the error that it is."""
        if answer.status == 200:
            try:
                return json.loads(answer.body)
            except (ValueError, RecursionError):
                raise ServerError(
                    f"The server at {self.address.base} answered something that is not JSON: "
                    f"{shown(self.quoted(answer.text), QUOTED)}."
                ) from None
        message = shown(self.quoted(_message(answer)), QUOTED)
        refused = RefusedError(answer.status, message)
        if answer.status in REFUSALS or (trial and answer.status in LACKING):
            raise refused
        if answer.status in BUSY:
            self._gone += answer.status in GONE
            asked = _seconds(answer.retry_after)
            raise _PassingError(str(refused), asked, trial=refused if trial and answer.status == 500 else None)
        raise ServerError(f"{self._status(answer.status)}: {message}.")

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

    def _before_waiting(self, state: RetryCallState) -> None:
        error = _error_of(state)
        if error is not None and not error.lost:
            self.gate.busy()

    def _lost(self, last: _GaveUpError) -> Exception:
        """The error of a request that failed as often as it may."""
        tries, reason = last.last_attempt.attempt_number, last.last_attempt.exception()
        if self._stopped.is_set():
            return ServerError("The session was interrupted.")
        if isinstance(reason, _PassingError) and reason.trial is not None:
            return reason.trial
        often = f" after {counted(tries, 'try', 'tries')}" if tries > 1 else ""
        return ServerError(f"The server at {self.address.base} does not answer{often}: {str(reason).rstrip('.')}.")


class _GaveUpError(RetryError):
    """Raised after the last attempt."""


_drawn = wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)


def _wait(state: RetryCallState) -> float:
    """Seconds to wait before the next attempt: what the server said, or else drawn at random from a growing range."""
    error = _error_of(state)
    asked = error.after if error is not None else None
    least = min(LONGEST_WAIT, LEAST_WAIT * 2 ** (state.attempt_number - 1))
    wait: float = _drawn(state) if asked is None else min(asked, LONGEST_WAIT)
    return wait if wait > least else least


def _error_of(state: RetryCallState) -> _PassingError | None:
    error = state.outcome.exception() if state.outcome is not None else None
    return error if isinstance(error, _PassingError) else None


def _seconds(header: str | None) -> float | None:
    """The number of seconds in a ``Retry-After`` header; dates are not read."""
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None


def _message(answer: Answer) -> str:
    """The message in an error, in any of the forms that servers use."""
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError):
        return answer.text
    while isinstance(content, Mapping):
        for name in ("error", "message", "detail"):
            if content.get(name):
                content = content[name]
                break
        else:
            break
    return str(content)

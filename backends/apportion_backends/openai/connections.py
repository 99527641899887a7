"""HTTP connections that stay open, one for each request under way, which can be cut from another thread."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx

from apportion.errors import ServerError

__all__ = ["Answer", "Connections", "CutError", "LateError"]

CONNECT_SECONDS = 10.0


class LateError(Exception):
    """The answer is not complete in time."""


class CutError(Exception):
    """There is no connection, or it broke."""


class Answer:
    """An answer that was read to its end.

    Args:
        response: its status and headers.
        body: its content.
    """

    def __init__(self, response: httpx.Response, body: bytes) -> None:
        self.status = response.status_code
        self.retry_after = response.headers.get("retry-after")
        self.body = body

    @property
    def text(self) -> str:
        """Its content as a text."""
        return self.body.decode("utf-8", "replace")


class _Connection:
    """An HTTP client with one connection: many threads would wait for the pool of a client that they share."""

    def __init__(self, timeout: float, trust: ssl.SSLContext | bool) -> None:
        limits = httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
        self.http = httpx.Client(timeout=limits, follow_redirects=False, verify=trust)
        self.socket: socket.socket | None = None
        self.opened = 0

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Keep the socket of a new connection, so that it can be cut."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self.opened += event.startswith("connection.connect_tcp")
            self.socket = info["return_value"].get_extra_info("socket")

    def cut(self) -> None:
        """End what is waiting for this connection; closing a socket does not wake another thread that reads it."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        self.http.close()


class Connections:
    """Sends requests, from any number of threads.

    Args:
        timeout: seconds from the start of a request to the end of its answer.
        secure: the server's address begins with ``https``.

    Attributes:
        outages: number of times that a connection broke, or had to be opened again.
    """

    def __init__(self, timeout: float, *, secure: bool) -> None:
        self.outages = 0
        self._timeout = timeout
        # Certificates take long to read, so they are read once; without TLS, there is nothing to verify.
        self._trust: ssl.SSLContext | bool = httpx.create_ssl_context() if secure else False
        self._lock = threading.Lock()
        self._free: list[_Connection] = []
        self._all: list[_Connection] = []
        self._in_flight, self._last = 0, time.monotonic()
        self._closed = False

    @property
    def idle(self) -> float:
        """Seconds since the last answer; 0 while requests are under way."""
        return 0.0 if self._in_flight else time.monotonic() - self._last

    def send(self, method: str, url: str, content: object, headers: Mapping[str, str]) -> Answer:
        """Send a request, and read its answer.

        Raises:
            LateError: it takes too long.
            CutError: the connection fails.
            ServerError: the address cannot be one, or the connections are closed.
        """
        connection = self._taken()
        before, until = connection.opened, time.monotonic() + self._timeout
        try:
            return self._read(connection, method, url, content, headers, until)
        except httpx.TimeoutException as error:
            raise LateError(type(error).__name__) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ServerError(f"{url!r} is not the address of a server: {error}.") from None
        except (httpx.RequestError, RuntimeError, OSError) as error:  # cut connections raise whatever they were at
            with self._lock:
                self.outages += 1
            raise CutError(f"{type(error).__name__}: {error}") from None
        finally:
            with self._lock:
                # A server that was started again has closed its connections.
                self.outages += before > 0 and connection.opened > before
            self._give(connection)

    def cut(self) -> None:
        """Cut all connections: requests under way fail at once."""
        with self._lock:
            everyone, self._all, self._free = self._all, [], []
        for connection in everyone:
            connection.cut()

    def close(self) -> None:
        """Cut all connections, and open no others; idempotent."""
        self._closed = True
        self.cut()

    def _read(
        self,
        connection: _Connection,
        method: str,
        url: str,
        content: object,
        headers: Mapping[str, str],
        until: float,
    ) -> Answer:
        extensions = {"trace": connection.trace}
        with connection.http.stream(method, url, json=content, headers=headers, extensions=extensions) as response:
            parts: list[bytes] = []
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > until:
                    raise LateError("the answer came in parts")
            return Answer(response, b"".join(parts))

    def _taken(self) -> _Connection:
        with self._lock:
            if self._closed:
                raise ServerError("This session is closed; make a new Explainer.")
            self._in_flight += 1
            if self._free:
                return self._free.pop()
            made = _Connection(self._timeout, self._trust)
            self._all.append(made)
            return made

    def _give(self, connection: _Connection) -> None:
        with self._lock:
            self._in_flight -= 1
            self._last = time.monotonic()
            if connection in self._all:  # else it was cut
                self._free.append(connection)

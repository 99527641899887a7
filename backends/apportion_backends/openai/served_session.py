"""The parts that all sessions of servers share: connections, counts, and checks that the model is still the same."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import replace

from apportion.errors import BackendError, ServerError, counted
from apportion.protocols.backend import Layout, SessionInfo
from apportion.protocols.row import ModelInput
from apportion_backends.openai.client import Client
from apportion_backends.openai.discovery import Served

__all__ = ["ServedSession"]

ROW_BYTES = 64
"""Memory of a token in a request and its answer, in bytes, with its number as a text."""
IDLE_SECONDS = 10.0
"""After this time without requests, the server may have another model."""


class ServedSession(ABC):
    """A session of a server.

    Args:
        client: sends requests.
        served: the model.
        info: description of the session.
        layout: its layout.

    Attributes:
        kept: nothing; what a server keeps is its own affair.
        client: the same.
        layout: the same.
    """

    kept: ModelInput | None = None

    def __init__(self, client: Client, served: Served, info: SessionInfo, layout: Layout) -> None:
        self.client, self.layout = client, layout
        self._served, self._info = served, info
        self._outages = client.outages
        client.gate.forget()
        self._checking = threading.Lock()
        self._closed = False

    @property
    def info(self) -> SessionInfo:
        """The server, the model and its limits; a note says if the server was busy."""
        fewest = int(self.client.gate.fewest)
        if fewest < self.layout.lanes:
            busy = f"the server was busy: {counted(fewest, 'request')} at once instead of {self.layout.lanes}"
            return replace(self._info, notes=(*self._info.notes, busy))
        return self._info

    @property
    def tokens_read(self) -> int:
        """Number of tokens that the server read and wrote so far, as it counts them."""
        return self.client.meter.tokens

    @property
    def pace(self) -> float:
        """Seconds for each token that the server read so far."""
        return self.client.meter.pace

    @property
    def price(self) -> float | None:
        """Price of a million tokens, if it is known."""
        price = self.client.meter.price
        return None if price is None else price.per_million

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """Memory of a row in a request and its answer."""
        return ROW_BYTES * (prefix + suffix + targets)

    def interrupt(self) -> None:
        """Wait for no answers any more."""
        self.client.interrupt()

    def release(self) -> None:
        """Take requests again after an interrupt."""
        self.client.resume()

    def close(self) -> None:
        """Close the connections; idempotent."""
        self._closed = True
        self.client.close()

    def check_open(self) -> None:
        """Refuse a closed session, and a server that has another model after a while without requests.

        Raises:
            BackendError: it was closed.
            ServerError: the model is another one.
        """
        if self._closed:
            raise BackendError("This session is closed; make a new Explainer.")
        with self._checking:
            if self.client.idle > IDLE_SECONDS:
                self.compare()

    def check_model(self) -> None:
        """After an outage, check that the model is the same: the server may have been started with another.

        Raises:
            ServerError: it is another one.
        """
        with self._checking:
            outages = self.client.outages
            if outages != self._outages:
                self.compare()
                self._outages = outages

    def unreadable(self, error: Exception) -> ServerError:
        """The error of an answer that cannot be used."""
        return ServerError(
            f"The server at {self.client.address.base} answered with {self.client.quoted(str(error))}. Nothing of this "
            "answer was used."
        )

    @abstractmethod
    def compare(self) -> None:
        """Compare the model with the one for which the session was opened.

        Raises:
            ServerError: it is another one.
        """
        ...

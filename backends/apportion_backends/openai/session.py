"""The session of a model behind a server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from apportion.errors import BackendError, BatchTooLargeError, InputError, ServerError, counted
from apportion.protocols.backend import Capability, Layout, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.likeness import Likeness, differ
from apportion.protocols.row import ModelInput, Row
from apportion_backends.known_again import as_tensor
from apportion_backends.openai.client import Client, RefusedError
from apportion_backends.openai.dialects import BadAnswerError, LogProbs
from apportion_backends.openai.discovery import Served, Traits, asked
from apportion_backends.openai.writing import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ServerSession"]

TOKENS_A_REQUEST = 16_384
ROW_BYTES = 64
"""Memory of a token in a request and its answer, in bytes, with its number as a text."""
SILENT = "the server does not name the tokens that it writes, so that it cannot write targets"
IDLE_SECONDS = 10.0
"""After this time without requests, the server may have another model."""


class ServerSession:
    """Scores rows by requests to a server.

    Args:
        client: sends requests.
        served: the model.
        traits: how the server scores it.
        tokenizer: the model's tokenizer.
        lanes: the most requests at once.
        rows: the most rows in a request.
        memory_budget: bytes that a request and its answer may take.
        notes: sentences for results.

    Attributes:
        kept: nothing; what a server keeps is its own affair.
    """

    kept: ModelInput | None = None

    def __init__(
        self,
        client: Client,
        served: Served,
        traits: Traits,
        tokenizer: PreTrainedTokenizerBase,
        *,
        lanes: int,
        rows: int,
        memory_budget: int,
        notes: tuple[str, ...],
    ) -> None:
        self.client, self.tokenizer = client, tokenizer
        self._served, self._traits = served, traits
        self._writer = Writer(client, served.name, traits.dialect, tokenizer)
        self.end_ids = self._writer.end_ids
        writes, names = self._writer.abilities(traits.likeness.row.prompt + traits.likeness.row.target[:2])
        able = {Capability.LOG_PROBS: True, Capability.TEXT: writes, Capability.GENERATE: names}
        self.capabilities = frozenset(one for one, can in able.items() if can)
        self.layout = Layout(
            padding=True,
            prefix_sharing=False,
            batch_tokens=TOKENS_A_REQUEST,
            lanes=lanes,
            ragged=True,
            batch_rows=rows if traits.several else 1,
            metered=True,
        )
        self._info = SessionInfo(
            backend="openai",
            device=client.address.host,
            dtype="server's dtype",
            context_length=served.context_length,
            memory_budget=memory_budget,
            vocabulary=len(tokenizer),
            notes=(*traits.notes, *notes, *(() if names else (SILENT,))),
            model=served.name,
        )
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
    def likeness(self) -> Likeness:
        """Scores by which caches know the model again."""
        return self._traits.likeness

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

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the target in every row, from one request.

        Raises:
            BatchTooLargeError: the request is too large for the server.
            InputError: the server refuses a row.
            ServerError: the server does not answer, answers what cannot be read, or has another model now.
        """
        if self._closed:
            raise BackendError("This session is closed; make a new Explainer.")
        self._check_if_idle()
        found = self._scored(batch.rows)
        self._check_model()
        return as_tensor(found, batch)

    def generate(
        self, prompt: ModelInput, options: Mapping[str, object], seed: int, room: int | None = None
    ) -> tuple[int, ...]:
        """The server's continuation of a prompt, greedily unless ``options`` say otherwise.

        Raises:
            InputError: an option is unknown, or the server refuses the prompt.
            ServerError: the server does not answer, or answers what cannot be read.
        """
        if self._closed:
            raise BackendError("This session is closed; make a new Explainer.")
        return self._writer(prompt.ids, options, seed, room)

    def write_text(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> str:
        """The server's text after a prompt, greedily unless ``options`` say otherwise.

        Raises:
            InputError: an option is unknown, or the server refuses the prompt.
            ServerError: the server does not answer, answers what cannot be read, or has another model now.
        """
        if self._closed:
            raise BackendError("This session is closed; make a new Explainer.")
        text = self._writer.text(prompt.ids, options, seed, room, stop)
        self._check_model()
        return text

    def fingerprint(self) -> str:
        """A hash of the model's name and of what else the server says of it."""
        return hashlib.blake2b(self._served.about.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

    def checksum(self) -> str:
        """The same and how it is asked; ``likeness`` tells models of one name apart.

        Raises:
            ServerError: the server has another model than when the session was opened.
        """
        self._check_if_idle()
        return f"{self._traits.dialect.name} {self.fingerprint()}"

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

    def _scored(self, rows: Sequence[Row]) -> list[LogProbs]:
        """Scores of rows; if the server refuses some of them, the others are asked for again without them."""
        reuse = self._traits.reuse
        try:
            if reuse is not None and reuse.pays(rows):
                return reuse(rows)
            return asked(self.client, self._served.name, self._traits.dialect, rows)
        except BadAnswerError as error:
            raise ServerError(
                f"The server at {self.client.address.base} answered with {self.client.quoted(str(error))}. Nothing of "
                "this answer was used."
            ) from None
        except RefusedError as refused:
            if len(rows) == 1:
                self._check_refusal(rows[0], refused)
                length = counted(len(rows[0].prompt) + len(rows[0].target), "token")
                raise InputError(f"The server refuses a prompt and target of {length} ({refused}).") from None
            if refused.status == 413:
                raise BatchTooLargeError(str(refused)) from None
        half = len(rows) // 2
        return [*self._scored(rows[:half]), *self._scored(rows[half:])]

    def _check_refusal(self, row: Row, refused: RefusedError) -> None:
        """Ask for a row that was scored before: if that is refused, too, it is not about this row.

        Raises:
            ServerError: the server refuses that row.
        """
        if row == self.likeness.row:
            return
        try:
            asked(self.client, self._served.name, self._traits.dialect, [self.likeness.row])
        except (RefusedError, BadAnswerError):
            raise ServerError(
                f"The server at {self.client.address.base} refuses every request now ({refused})."
            ) from None

    def _check_if_idle(self) -> None:
        """After a while without requests, check that the model is the same.

        Raises:
            ServerError: it is another one.
        """
        with self._checking:
            if self.client.idle > IDLE_SECONDS:
                self._compare()

    def _check_model(self) -> None:
        """After an outage, check that the model is the same: the server may have been started with another.

        Raises:
            ServerError: it is another one.
        """
        with self._checking:
            outages = self.client.outages
            if outages != self._outages:
                self._compare()
                self._outages = outages

    def _compare(self) -> None:
        (now,) = self._scored([self.likeness.row])
        if differ(now, self.likeness.log_probs, self.likeness.tolerance):
            worst = max(abs(a - b) for a, b in zip(now, self.likeness.log_probs, strict=True))
            raise ServerError(
                f"The server at {self.client.address.base} now has other weights under the name {self._served.name!r}: "
                f"a row's scores differ by {worst:.2g} nats from those when the session was opened. Make a new "
                "Explainer."
            )

"""The session of a model behind a server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from apportion.errors import BatchTooLargeError, InputError, ServerError, counted
from apportion.protocols.backend import Capability, Layout, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.likeness import Likeness, differ
from apportion.protocols.row import ModelInput, Row
from apportion_backends.known_again import as_tensor
from apportion_backends.openai.client import Client, RefusedError
from apportion_backends.openai.dialects import BadAnswerError, LogProbs
from apportion_backends.openai.discovery import Served, Traits, asked
from apportion_backends.openai.served_session import ServedSession
from apportion_backends.openai.writing import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ServerSession"]

TOKENS_A_REQUEST = 16_384
SILENT = "the server does not name the tokens that it writes, so that it cannot write targets"


class ServerSession(ServedSession):
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
    """

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
        self.tokenizer, self._traits = tokenizer, traits
        self._writer = Writer(client, served.name, traits.dialect, tokenizer)
        self.end_ids = self._writer.end_ids
        writes, names = self._writer.abilities(traits.likeness.row.prompt + traits.likeness.row.target[:2])
        able = {Capability.LOG_PROBS: True, Capability.TEXT: writes, Capability.GENERATE: names}
        self.capabilities = frozenset(one for one, can in able.items() if can)
        layout = Layout(
            padding=True,
            prefix_sharing=False,
            batch_tokens=TOKENS_A_REQUEST,
            lanes=lanes,
            ragged=True,
            batch_rows=rows if traits.several else 1,
            metered=True,
        )
        info = SessionInfo(
            backend="openai",
            device=client.address.host,
            dtype="server's dtype",
            context_length=served.context_length,
            memory_budget=memory_budget,
            vocabulary=len(tokenizer),
            notes=(*traits.notes, *notes, *(() if names else (SILENT,))),
            model=served.name,
        )
        super().__init__(client, served, info, layout)

    @property
    def likeness(self) -> Likeness:
        """Scores by which caches know the model again."""
        return self._traits.likeness

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the target in every row, from one request.

        Raises:
            BatchTooLargeError: the request is too large for the server.
            InputError: the server refuses a row.
            ServerError: the server does not answer, answers what cannot be read, or has another model now.
        """
        self.check_open()
        found = self._scored(batch.rows)
        self.check_model()
        return as_tensor(found, batch)

    def generate(
        self, prompt: ModelInput, options: Mapping[str, object], seed: int, room: int | None = None
    ) -> tuple[int, ...]:
        """The server's continuation of a prompt, greedily unless ``options`` say otherwise.

        Raises:
            InputError: an option is unknown, or the server refuses the prompt.
            ServerError: the server does not answer, or answers what cannot be read.
        """
        self.check_open()
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
        self.check_open()
        text = self._writer.text(prompt.ids, options, seed, room, stop)
        self.check_model()
        return text

    def fingerprint(self) -> str:
        """A hash of the model's name and of what else the server says of it."""
        return hashlib.blake2b(self._served.about.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

    def checksum(self) -> str:
        """The same and how it is asked; ``likeness`` tells models of one name apart.

        Raises:
            ServerError: the server has another model than when the session was opened.
        """
        self.check_open()
        return f"{self._traits.dialect.name} {self.fingerprint()}"

    def _scored(self, rows: Sequence[Row]) -> list[LogProbs]:
        """Scores of rows; if the server refuses some of them, the others are asked for again without them."""
        reuse = self._traits.reuse
        try:
            if reuse is not None and reuse.pays(rows):
                return reuse(rows)
            return asked(self.client, self._served.name, self._traits.dialect, rows)
        except BadAnswerError as error:
            raise self.unreadable(error) from None
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

    def compare(self) -> None:
        """Compare the scores of a row with those that it had when the session was opened.

        Raises:
            ServerError: they are those of another model.
        """
        (now,) = self._scored([self.likeness.row])
        if differ(now, self.likeness.log_probs, self.likeness.tolerance):
            worst = max(abs(a - b) for a, b in zip(now, self.likeness.log_probs, strict=True))
            raise ServerError(
                f"The server at {self.client.address.base} now has other weights under the name {self._served.name!r}: "
                f"a row's scores differ by {worst:.2g} nats from those when the session was opened. Make a new "
                "Explainer."
            )

"""The session of a model behind a server that writes texts and scores no given tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from apportion.errors import CapabilityError, InputError, ServerError
from apportion.protocols.backend import Capability, Layout, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput
from apportion_backends.known_again import PROBE
from apportion_backends.openai.black_box import CHAT, COMPLETIONS, BlackBox, EmptyAnswerError, probed, text_by
from apportion_backends.openai.client import Client, RefusedError
from apportion_backends.openai.dialects import BadAnswerError
from apportion_backends.openai.discovery import Served
from apportion_backends.openai.messages import Asked, asked_of, message_tokenizer
from apportion_backends.openai.served_session import ServedSession
from apportion_backends.openai.writing import MOST_STOPS, generation_options

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TextServerSession"]

FRAMED = "prompts are sent to a chat API: a plain text as one message of the user"


class TextServerSession(ServedSession):
    """Writes texts by requests to a server. Prompts are sent as texts, or as messages if they are a ``Chat``.

    Args:
        client: sends requests.
        served: the model.
        box: how the server writes texts.
        lanes: the most requests at once.
        memory_budget: bytes that a request and its answer may take.
        refusal: the reason why the server scores no given tokens.
        notes: sentences for results.

    Attributes:
        capabilities: ``TEXT`` alone.
        tokenizer: has a token for each byte, so that nothing of a prompt is lost; not the model's own.
        log_probs_refusal: the reason why the server scores no given tokens.
        bytes_per_token: for estimates; rather few, as for texts that are not English.
    """

    capabilities = frozenset({Capability.TEXT})
    bytes_per_token = 3.0

    def __init__(
        self,
        client: Client,
        served: Served,
        box: BlackBox,
        *,
        lanes: int,
        memory_budget: int,
        refusal: str,
        notes: tuple[str, ...],
    ) -> None:
        self._box = box
        self.log_probs_refusal = refusal
        self.tokenizer: PreTrainedTokenizerBase = message_tokenizer(
            chats=CHAT in box.ways, continues=COMPLETIONS in box.ways
        )
        layout = Layout(padding=True, prefix_sharing=False, batch_tokens=1, lanes=lanes, batch_rows=1, metered=True)
        info = SessionInfo(
            backend="openai",
            device=client.address.host,
            dtype="server's dtype",
            context_length=None,
            memory_budget=memory_budget,
            vocabulary=len(self.tokenizer),
            notes=(*box.notes, *notes, *((FRAMED,) if COMPLETIONS not in box.ways else ())),
            model=served.name,
        )
        super().__init__(client, served, info, layout)

    @property
    def steady_texts(self) -> bool:
        """True if a greedy text is the same each time, as far as was seen when the session was opened."""
        return self._box.probe is not None

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Refuse.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(f"The server scores no given tokens: {self.log_probs_refusal}.")

    def write_text(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> str:
        """The server's text after a prompt.

        Raises:
            InputError: an option is unknown, or the server refuses the prompt.
            ServerError: the server does not answer, answers what cannot be read, or has another model now.
        """
        self.check_open()
        most, sampling = generation_options(options)
        asked = asked_of(self.tokenizer, prompt.ids)
        way = self._box.way(asked)
        drawn = None if sampling is None else {**sampling, "seed": seed}
        content = way.content(self._served.name, asked, most, drawn)
        if 0 < len(stop) <= MOST_STOPS:
            content["stop"] = [*stop]
        try:
            text = text_by(self.client, way, content, most)
        except RefusedError as refused:
            raise InputError(f"The server does not continue a prompt of {len(prompt.ids)} bytes ({refused}).") from None
        except EmptyAnswerError as error:
            raise InputError(f"The server answered with an empty text, which says nothing: {error}.") from None
        except BadAnswerError as error:
            raise self.unreadable(error) from None
        self.check_model()
        return text

    def fingerprint(self) -> str:
        """A hash of the model's name, of what else the server says of it, and of its text after a fixed prompt."""
        about = f"{self._served.about} {self._box.probe}"
        return hashlib.blake2b(about.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()

    def checksum(self) -> str:
        """The same, and how it is asked."""
        return f"{sorted(self._box.ways)} {self.fingerprint()}"

    def check_prompt(self, prompt: ModelInput) -> None:
        """Refuse a prompt that cannot be sent as a text or as messages.

        Raises:
            InputError: it cannot.
        """
        self._box.way(asked_of(self.tokenizer, prompt.ids))

    def compare(self) -> None:
        """Compare the greedy text after a fixed prompt with what it was when the session was opened.

        Raises:
            ServerError: it is another one.
        """
        if self._box.probe is None:
            return
        if probed(self.client, self._served.name, self._box.way(Asked(text=PROBE))) != self._box.probe:
            raise ServerError(
                f"The server at {self.client.address.base} now has another model under the name {self._served.name!r}: "
                "its text after a fixed prompt is another one than when the session was opened. Make a new Explainer."
            )

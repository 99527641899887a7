"""The context in which an input adapter splits a prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apportion.protocols.row import ModelInput
from apportion.rendering.encoder import Encoder, added_around, check_encodable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from apportion.protocols.backend import Session

__all__ = ["AdaptContext", "PromptText", "tokenizer_of_targets"]

Ids = tuple[int, ...]

Make = Callable[[str, str], Any]
"""Makes a registered object of its kind and short form."""

RECENT = 16
"""Number of texts that are remembered with their ids."""


@dataclass(frozen=True, slots=True)
class PromptText:
    """The text of a prompt, and how it was tokenised.

    Attributes:
        text: the whole text.
        special_tokens: the tokenizer's special tokens were added to it.
    """

    text: str
    special_tokens: bool


@dataclass(frozen=True, slots=True)
class AdaptContext:
    """Context in which an adapter splits a prompt.

    Attributes:
        tokenizer: the model's tokenizer.
        seed: the run's seed, for adapters that sample.
        request_id: id of the run's request.
        closed: prompts end with the special tokens that the tokenizer appends to a text, because the model reads the
            target apart from them. Otherwise these are left out: the target continues the prompt.
        as_target: texts are what a decoder writes, and not prompts.
        processor: the model's processor, if the session has one and reads media.
        writer: turns texts into the token ids of whole prompts, with the tokenizer's special tokens or without, such as
            those of a chat with pictures; ``None`` to tokenise the texts as they are.
        make: makes an object that a plugin has registered, of its kind and short form, such as
            ``make("fills", "blur:20")``; raises ``InputError`` for unknown ones. ``None`` where no plugins are loaded.
    """

    tokenizer: PreTrainedTokenizerBase
    seed: int = 0
    request_id: str = ""
    closed: bool = False
    as_target: bool = False
    processor: Any = None
    writer: Callable[[Sequence[str], bool], Sequence[Ids]] | None = field(default=None, repr=False)
    make: Make | None = field(default=None, repr=False)
    _encoder: Encoder = field(init=False, repr=False, compare=False)
    _around: tuple[Ids, Ids] = field(init=False, repr=False, compare=False)
    _recent: deque[tuple[Ids, PromptText]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # It caches tokenised text for as long as the prompt lives.
        object.__setattr__(self, "_encoder", Encoder(self.tokenizer, as_target=self.as_target))
        object.__setattr__(self, "_around", added_around(self.tokenizer, as_target=self.as_target))
        object.__setattr__(self, "_recent", deque(maxlen=RECENT))

    @classmethod
    def of_session(cls, session: Session, seed: int = 0, request_id: str = "", *, make: Make | None) -> AdaptContext:
        """The context of prompts for a session."""
        return cls(
            session.tokenizer,
            seed,
            request_id,
            closed=not session.layout.joint,
            processor=getattr(session, "processor", None),
            make=make,
        )

    @property
    def before(self) -> tuple[int, ...]:
        """The special tokens that ``encode`` adds before a text."""
        return self._around[0]

    @property
    def omitted(self) -> tuple[int, ...]:
        """The special tokens that the tokenizer appends to a text, and ``encode`` leaves out."""
        return () if self.closed else self._around[1]

    def encode(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[tuple[int, ...]]:
        """Tokenise each text; the ids are those that the tokenizer returns for the whole text.

        Special tokens that the tokenizer appends to every text, such as an end-of-text token, are left out, because the
        target continues the prompt. Passing many texts in one call is fastest.

        Args:
            texts: whole prompts.
            special_tokens: include the special tokens that the tokenizer adds to a prompt; ``False`` for texts that
                already contain them, such as the output of a chat template.
        """
        for text in texts:
            check_encodable("prompt", text)
        if special_tokens and self.omitted:
            found = [(*self.before, *ids) for ids in self._encoder(texts, special_tokens=False)]
        else:
            found = self._encoder(texts, special_tokens=special_tokens)
        known = (PromptText(text, special_tokens) for text in texts[:RECENT])
        self._recent.extend(zip(found[:RECENT], known, strict=True))
        return found

    def prompts(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[ModelInput]:
        """Make model inputs of whole prompts: by ``writer`` if there is one, else by ``encode``.

        Args:
            texts: whole prompts.
            special_tokens: as for ``encode``.
        """
        write = self.writer
        if write is None:
            return [ModelInput(ids) for ids in self.encode(texts, special_tokens=special_tokens)]
        for text in texts:
            check_encodable("prompt", text)
        return [ModelInput(ids) for ids in write(texts, special_tokens)]

    def text_of(self, ids: tuple[int, ...]) -> PromptText | None:
        """The text that was recently encoded to these ids, if there is one."""
        return next((known for found, known in reversed(self._recent) if found == ids), None)


def tokenizer_of_targets(session: Session) -> PreTrainedTokenizerBase:
    """The tokenizer of what a session writes, which may be another one than that of prompts."""
    return session.tokenizer if session.layout.joint else getattr(session, "target_tokenizer", session.tokenizer)

"""The context in which an input adapter splits a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apportion.rendering.encoder import Encoder, check_encodable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["AdaptContext"]


@dataclass(frozen=True, slots=True)
class AdaptContext:
    """Context in which an adapter splits a prompt.

    Attributes:
        tokenizer: the model's tokenizer.
        seed: the run's seed, for adapters that sample.
        request_id: id of the run's request.
    """

    tokenizer: PreTrainedTokenizerBase
    seed: int = 0
    request_id: str = ""
    _encoder: Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # It caches tokenised text for as long as the prompt lives.
        object.__setattr__(self, "_encoder", Encoder(self.tokenizer))

    def encode(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[tuple[int, ...]]:
        """Tokenise each text; the ids are those that the tokenizer returns for the whole text.

        Passing many texts in one call is fastest.

        Args:
            texts: whole prompts.
            special_tokens: include the special tokens that the tokenizer adds to a prompt; ``False`` for texts that
                already contain them, such as the output of a chat template.
        """
        for text in texts:
            check_encodable("prompt", text)
        return self._encoder(texts, special_tokens=special_tokens)

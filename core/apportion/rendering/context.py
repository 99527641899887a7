"""What an input adapter may use while it cuts a prompt."""

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
    """What an adapter may use while it cuts a prompt.

    Attributes:
        tokenizer: the model's tokenizer.
        seed: the run's seed, for adapters that draw.
        request_id: of the run's request.
    """

    tokenizer: PreTrainedTokenizerBase
    seed: int = 0
    request_id: str = ""
    _encoder: Encoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # It remembers what it has tokenised, for as long as the prompt lives.
        object.__setattr__(self, "_encoder", Encoder(self.tokenizer))

    def encode(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[tuple[int, ...]]:
        """Token ids of each text, those of the tokenizer on the whole text; many texts at once take the least time.

        Args:
            texts: whole prompts.
            special_tokens: with the special tokens that the tokenizer adds to a prompt; ``False`` for texts that
                hold them already, as those do that a chat template has written.
        """
        for text in texts:
            check_encodable("prompt", text)
        return self._encoder(texts, special_tokens=special_tokens)

"""A stopping criterion that reads the text which has been generated so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import StoppingCriteria

from apportion.rendering.token_texts import added_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["StopAtText"]


class StopAtText(StoppingCriteria):
    """Ends a generation with the token that completes a stop text.

    The ``stop_strings`` of ``transformers`` prepare a table of the whole vocabulary first, which takes longer than
    reading a short text again after each token.

    Args:
        tokenizer: decodes tokens.
        prompt: number of tokens of the prompt.
        stop: the stop texts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: int, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._stop = stop

    def __call__(self, input_ids: Int[Tensor, "B L"], scores: object, **_: object) -> Bool[Tensor, " B"]:
        """True for each row whose generated text contains a stop text."""
        texts = [added_text(self._tokenizer, row, self._prompt, len(row)) for row in input_ids.tolist()]
        ended = [any(stop in text for stop in self._stop) for text in texts]
        return torch.tensor(ended, device=input_ids.device)

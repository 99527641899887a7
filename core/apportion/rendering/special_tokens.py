"""The special tokens that a tokenizer adds before and after every text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["added_around"]

Ids = tuple[int, ...]

SAMPLE = "a"
"""The special tokens around a text do not depend on the text."""


def added_around(tokenizer: PreTrainedTokenizerBase) -> tuple[Ids, Ids]:
    """The special tokens before and after each text; none if they cannot be told from the text's own tokens."""
    plain, ids = (
        tuple(tokenizer(SAMPLE, add_special_tokens=special, return_attention_mask=False)["input_ids"])
        for special in (False, True)
    )
    # A post-processor may also repeat the text.
    starts = [i for i in range(len(ids) - len(plain) + 1) if ids[i : i + len(plain)] == plain]
    if not plain or len(starts) != 1:
        return (), ()
    return ids[: starts[0]], ids[starts[0] + len(plain) :]

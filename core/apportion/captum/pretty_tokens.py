"""Texts of target tokens, for labels."""

from __future__ import annotations

from typing import Any

from jaxtyping import Int
from torch import Tensor

__all__ = ["pretty_tokens"]

BROKEN = "\N{REPLACEMENT CHARACTER}"
OVERLAP = " [OVERLAP]"


def pretty_tokens(ids: Int[Tensor, " T"], tokenizer: Any) -> list[str]:
    """The text of each token in its context, without white space around it.

    A character that several tokens share is shown for each of them, and marked from the second on. Tokens of a
    tokenizer without offsets, or that are not those of their text, are decoded one by one.
    """
    found = _by_offsets(ids.tolist(), tokenizer)
    return _one_by_one(ids.tolist(), tokenizer) if found is None else found


def _by_offsets(ids: list[int], tokenizer: Any) -> list[str] | None:
    """The texts by the tokenizer's offsets; ``None`` if it has none, or encodes the text otherwise."""
    text = tokenizer.decode(ids)
    try:
        encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        again, offsets = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    except (TypeError, KeyError, ValueError, NotImplementedError, AttributeError):
        return None
    if len(again) != len(offsets) or again != ids:
        return None
    starts = [start for start, _ in offsets[1:]] + [len(text)]
    found, before = [], -1
    for (start, end), following in zip(offsets, starts, strict=True):
        # Some tokenizers give empty spans; then a token reaches to the next.
        stop = following if start == end else end
        found.append(_clean(text[start:stop]) + (OVERLAP if before > start else ""))
        before = stop
    return found


def _one_by_one(ids: list[int], tokenizer: Any) -> list[str]:
    """Each token decoded alone; a character of several tokens is decoded from all of them."""
    found: list[str] = []
    place = 0
    while place < len(ids):
        size = _characters(ids[place:], tokenizer)
        shown = _clean(tokenizer.decode(ids[place : place + size]))
        found += [shown, *[shown + OVERLAP] * (size - 1)]
        place += size
    return found


def _characters(ids: list[int], tokenizer: Any) -> int:
    """Number of tokens, up to four, that make the first character."""
    if BROKEN not in tokenizer.decode(ids[:1]):
        return 1
    for size in range(2, min(4, len(ids)) + 1):
        if BROKEN not in tokenizer.decode(ids[:size]):
            return size
    return 1


def _clean(text: str) -> str:
    return text.replace("\n", "\\n").strip()

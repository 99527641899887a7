"""Readable texts of token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["added_text", "control_ids", "token_texts", "whole_texts"]

CONTEXT = 4
"""Number of preceding tokens that can affect how a token is decoded (a leading space, a joined character)."""
LONGEST = 8
"""Maximum number of tokens in one UTF-8 character."""
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], first: int = 0) -> tuple[str, ...]:
    """The text that each token adds, without byte marks (``Ġ``, ``▁``) but with spaces.

    If several tokens make up one character, each shows that character with a number: ``🙂₁``, ``🙂₂``.

    Args:
        tokenizer: the tokenizer of the ids.
        ids: token ids.
        first: index of the first token of interest; those before it only affect how it is decoded.
    """
    texts: list[str] = []
    for size, text in whole_texts(tokenizer, ids, first):
        texts += [text] if size == 1 else [f"{text}{str(i + 1).translate(SUBSCRIPTS)}" for i in range(size)]
    return tuple(texts)


def whole_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], first: int = 0) -> Iterator[tuple[int, str]]:
    """Numbers of tokens that make up whole characters, usually one, each with the text that they add."""
    start = first
    while start < len(ids):
        size, text = _shortest_whole(tokenizer, ids, start)
        yield size, text
        start += size


def _shortest_whole(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], start: int) -> tuple[int, str]:
    """The fewest tokens from ``start`` that decode to whole characters, and their text."""
    for size in range(1, min(LONGEST, len(ids) - start) + 1):
        text = added_text(tokenizer, ids, start, start + size)
        if "\ufffd" not in text:
            return size, text
    token = tokenizer.convert_ids_to_tokens(int(ids[start]))
    return 1, str(token)


def added_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], start: int, stop: int) -> str:
    """The text that decoding up to ``stop`` adds to decoding up to ``start``."""
    first = max(0, start - CONTEXT)
    before = str(tokenizer.decode(list(ids[first:start]), clean_up_tokenization_spaces=False))
    upto = str(tokenizer.decode(list(ids[first:stop]), clean_up_tokenization_spaces=False))
    # A context cut inside a character decodes differently; then decode the tokens without it.
    if not upto.startswith(before):
        return str(tokenizer.decode(list(ids[start:stop]), clean_up_tokenization_spaces=False))
    return upto[len(before) :]


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids of control tokens, such as the end of a text or the markup of a chat template."""
    added = (token for token, content in tokenizer.added_tokens_decoder.items() if content.special)
    return frozenset((*tokenizer.all_special_ids, *added))

"""Rows that begin alike, for engines that keep the beginnings of prompts in blocks; used by several backends."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.protocols.row import Row
from apportion.scoring.prefix_tree import common_prefix

__all__ = ["kept_beginning", "pays"]

BLOCK = 16
"""Tokens that vLLM keeps or forgets together."""
GAIN = 1.5
"""Tokens saved, as a factor, from which more prompts are worth it."""
PROMPT_TOKENS = 48
"""Cost of one more prompt, in tokens, measured with vLLM on a CPU; a GPU's is hidden by its speed."""


def pays(rows: Sequence[Row]) -> bool:
    """True if an engine reads far fewer tokens when it is asked for one target token after the other.

    A target of T tokens then takes T prompts, each a token longer, of which all but the last tokens are kept from the
    one before. All rows keep what they begin with.
    """
    shared = kept_beginning(rows)
    whole = sum(PROMPT_TOKENS + len(row.prompt) + len(row.target) for row in rows)
    parts = shared
    for row in rows:
        lengths = range(len(row.prompt), len(row.read) + 1)
        parts += lengths[0] - shared + sum(length - _full(length - 1) for length in lengths[1:])
        parts += PROMPT_TOKENS * len(lengths)
    return parts * GAIN < whole


def kept_beginning(rows: Sequence[Row]) -> int:
    """Number of tokens in full blocks with which all prompts begin, without the last token of any."""
    ends = min(rows, key=lambda row: row.prompt).prompt, max(rows, key=lambda row: row.prompt).prompt
    return _full(min(common_prefix(*ends), *(len(row.prompt) - 1 for row in rows)))


def _full(tokens: int) -> int:
    """Number of these tokens in full blocks."""
    return tokens // BLOCK * BLOCK

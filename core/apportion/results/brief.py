"""Pieces of results in a few lines, for ``print`` and for the prompt of an interpreter."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["listed", "quoted"]

LONGEST = 48
"""Longest quotation, in characters."""
MOST = 6
"""Most items of a list."""


def quoted(text: str) -> str:
    """A text between quotes, shortened, with what cannot be seen escaped."""
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…")


def listed(texts: Iterable[str]) -> str:
    """The first items, and the number of the others."""
    some = list(texts)
    more = f" and {len(some) - MOST} more" if len(some) > MOST else ""
    return ", ".join(some[:MOST]) + more

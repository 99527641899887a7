"""The minimum number of tokens that a model has to read: each distinct prefix of the token sequences once.

This is counted from sorted sequences, independently of the planner, because it serves to assess the planner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["PrefixTree", "prefix_tree"]


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """The prefix tree of token sequences; a node is a token together with all tokens before it.

    Attributes:
        rows: number of distinct sequences.
        branches: nodes that each sequence adds to the tree, as positions ``start`` (exclusive) to ``end``, counted
            from 1.
    """

    rows: int
    branches: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> int:
        """Number of tokens to read."""
        return sum(end - start for start, end in self.branches)

    def attended(self, window: int | None = None) -> int:
        """Number of pairs of a token and one that it attends to, itself included.

        Args:
            window: maximum number of tokens that it attends to; ``None`` for no limit.
        """
        return sum(_pairs(end, window) - _pairs(start, window) for start, end in self.branches)


def prefix_tree(sequences: Iterable[Sequence[int]]) -> PrefixTree:
    """Build the tree of these sequences, in any order; repeated ones count once."""
    branches: list[tuple[int, int]] = []
    before: tuple[int, ...] = ()
    distinct = sorted({tuple(sequence) for sequence in sequences})
    for sequence in distinct:
        # In sorted order, no earlier sequence has a longer prefix in common than the previous one.
        branches.append((_shared(before, sequence), len(sequence)))
        before = sequence
    return PrefixTree(len(distinct), tuple(branches))


def _shared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Number of leading tokens that are equal."""
    shared = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    return shared


def _pairs(length: int, window: int | None) -> int:
    """Number of such pairs for the first ``length`` tokens of a sequence."""
    full = length if window is None else min(length, window)
    return full * (full + 1) // 2 + (length - full) * full

"""The least that a model has to read: every distinct beginning of the token sequences once.

Counted here from sorted sequences, and not by the planner, whose work is measured with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["PrefixTree", "prefix_tree"]


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """The prefix tree of token sequences; a node is a token after all that came before it.

    Attributes:
        rows: distinct sequences.
        branches: the nodes that each sequence adds to those before it, as positions ``start`` (not included) to
            ``end``, counted from 1.
    """

    rows: int
    branches: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> int:
        """Tokens to read."""
        return sum(end - start for start, end in self.branches)

    def attended(self, window: int | None = None) -> int:
        """Pairs of a token and one that it sees, itself included.

        Args:
            window: how many tokens it sees at most; ``None`` for all before it.
        """
        return sum(_pairs(end, window) - _pairs(start, window) for start, end in self.branches)


def prefix_tree(sequences: Iterable[Sequence[int]]) -> PrefixTree:
    """The tree of these sequences, in any order, repeated ones counting once."""
    branches: list[tuple[int, int]] = []
    before: tuple[int, ...] = ()
    distinct = sorted({tuple(sequence) for sequence in sequences})
    for sequence in distinct:
        # Sorted, a sequence shares with the one before it as much as with any of those before.
        branches.append((_shared(before, sequence), len(sequence)))
        before = sequence
    return PrefixTree(len(distinct), tuple(branches))


def _shared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many leading tokens are the same."""
    shared = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    return shared


def _pairs(length: int, window: int | None) -> int:
    """What the first ``length`` tokens of a sequence see."""
    full = length if window is None else min(length, window)
    return full * (full + 1) // 2 + (length - full) * full

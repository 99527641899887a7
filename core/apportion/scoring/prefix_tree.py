"""The prefix tree of token sequences: what of each has been read when it is its turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apportion.protocols.row import Row

__all__ = ["common_prefix", "minimum_tokens", "reused_tokens"]


def common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many leading tokens two sequences share."""
    # Slices are compared at C speed, so halving beats looking at one token after the other.
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def reused_tokens(rows: Iterable[Row], kept: tuple[int, ...] = ()) -> list[int]:
    """For each row, how many leading tokens need not be read, when rows are read in this order in one forward.

    A row goes on from the row before it, the first one from what is kept of an earlier forward. Of kept tokens only
    keys and values are known, so the token that predicts a row's first target token is read in this forward.

    Args:
        rows: in the order in which they are read.
        kept: the sequence whose keys and values are known.
    """
    found: list[int] = []
    # Leading tokens of the row before that were not read in this forward.
    before, old = kept, len(kept)
    for row in rows:
        read = row.read
        reused = common_prefix(before, read)
        old = min(old, reused)
        if old >= len(row.prompt):
            reused = old = len(row.prompt) - 1
        found.append(reused)
        before = read
    return found


def minimum_tokens(rows: Sequence[Row]) -> int:
    """The nodes of the prefix tree: the fewest tokens that a model can read to score all rows."""
    read = sorted(row.read for row in rows)
    return sum(len(b) - common_prefix(a, b) for a, b in zip([(), *read], read, strict=False))

"""The prefix tree of token sequences: how much of each row has been read when it is its turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apportion.protocols.row import Media, ModelInput, Row

__all__ = ["common_prefix", "in_tree_order", "minimum_tokens", "reused_tokens", "shared_prompt"]


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


def shared_prompt(a: Row, b: Row) -> int:
    """Leading prompt tokens that two rows share, but for the last token of either prompt.

    That one predicts the first target token, so it stays in its row. Rows with different media share nothing: the same
    placeholder tokens stand for different content there.
    """
    if a.media != b.media:
        return 0
    return min(common_prefix(a.prompt, b.prompt), len(a.prompt) - 1, len(b.prompt) - 1)


def in_tree_order(rows: Sequence[Row]) -> list[int]:
    """The numbers of the rows in the order of their prefix tree; rows with the same media stay together."""
    return sorted(range(len(rows)), key=lambda i: (rows[i].media, rows[i].read))


def reused_tokens(rows: Iterable[Row], kept: ModelInput | None = None) -> list[int]:
    """For each row, how many leading tokens need not be read, when rows are read in this order in one forward.

    A row goes on from the row before it, the first one from what is kept of an earlier forward. Of kept tokens only
    keys and values are known, so the token that predicts a row's first target token is read in this forward.

    Args:
        rows: in the order in which they are read.
        kept: what was read before, whose keys and values are known.
    """
    found: list[int] = []
    before, media = (kept.ids, kept.media) if kept is not None else ((), ())
    # Leading tokens of the row before that were not read in this forward.
    old = len(before)
    for row in rows:
        read = row.read
        reused = common_prefix(before, read) if row.media == media else 0
        old = min(old, reused)
        if old >= len(row.prompt):
            reused = old = len(row.prompt) - 1
        found.append(reused)
        before, media = read, row.media
    return found


def minimum_tokens(rows: Sequence[Row]) -> int:
    """The nodes of the prefix tree: the fewest tokens that a model can read to score all rows."""
    total = 0
    before: tuple[int, ...] = ()
    media: tuple[Media, ...] = ()
    for i in in_tree_order(rows):
        read = rows[i].read
        total += len(read) - (common_prefix(before, read) if rows[i].media == media else 0)
        before, media = read, rows[i].media
    return total

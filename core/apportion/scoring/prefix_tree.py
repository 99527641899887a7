"""The prefix tree of token sequences, from which follows how much of each row has already been read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apportion.protocols.row import Media, ModelInput, Row

__all__ = ["common_prefix", "in_tree_order", "minimum_tokens", "reused_tokens", "shared_prompt"]


def common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Number of leading tokens that two sequences share."""
    # Slices are compared at C speed, so bisection beats comparing token by token.
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def shared_prompt(a: Row, b: Row) -> int:
    """Number of leading prompt tokens that two rows share, except for the last token of either prompt.

    The last token predicts the first target token, so it stays in its row. Rows with different media share nothing,
    because the same placeholder tokens then represent different content.
    """
    if a.media != b.media:
        return 0
    return min(common_prefix(a.prompt, b.prompt), len(a.prompt) - 1, len(b.prompt) - 1)


def in_tree_order(rows: Sequence[Row]) -> list[int]:
    """Numbers of the rows in the order of their prefix tree; rows with the same media stay together."""
    return sorted(range(len(rows)), key=lambda i: (rows[i].media, rows[i].read))


def reused_tokens(rows: Iterable[Row], kept: ModelInput | None = None) -> list[int]:
    """Number of leading tokens of each row that need not be read, if rows are read in this order in one forward pass.

    A row continues from the row before it, and the first row continues from the tokens kept from an earlier forward
    pass. Only keys and values of kept tokens are known, so the token that predicts a row's first target token must be
    read in this forward pass.

    Args:
        rows: the rows, in the order in which they are read.
        kept: tokens that were read before, with known keys and values.
    """
    found: list[int] = []
    before, media = (kept.ids, kept.media) if kept is not None else ((), ())
    # Leading tokens of the previous row that were not read in this forward pass.
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
    """Number of nodes in the prefix tree: the fewest tokens that a model can read to score all rows."""
    total = 0
    before: tuple[int, ...] = ()
    media: tuple[Media, ...] = ()
    for i in in_tree_order(rows):
        read = rows[i].read
        total += len(read) - (common_prefix(before, read) if rows[i].media == media else 0)
        before, media = read, rows[i].media
    return total

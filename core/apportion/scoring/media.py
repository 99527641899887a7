"""Media that a session encodes apart from the tokens: which rows to read together, and how many are encoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apportion.protocols.row import Media, Row

__all__ = ["KeptMedia", "windows"]


class KeptMedia:
    """The media whose encodings a session keeps, those used last at the end.

    Args:
        capacity: maximum number that is kept from batch to batch; ``None`` for any number.
    """

    def __init__(self, capacity: int | None) -> None:
        self._capacity = capacity
        self._kept: dict[Media, None] = {}

    def read(self, rows: Iterable[Row]) -> int:
        """Read the rows of one batch, and return the number of media that are encoded for it."""
        used = dict.fromkeys(one for row in rows for one in row.media)
        new = sum(one not in self._kept for one in used)
        for one in used:
            self._kept.pop(one, None)
        self._kept |= used
        if self._capacity is not None:
            # What a batch needs is kept until it has been read.
            for one in list(self._kept)[: max(0, len(self._kept) - max(self._capacity, len(used)))]:
                del self._kept[one]
        return new


def windows(rows: Sequence[Row], capacity: int) -> list[int]:
    """Divide rows into windows, so that the media of each can be kept while its rows are read.

    Rows with the same media are in the same window. Within a window, rows may be read in any order.

    Args:
        rows: the rows.
        capacity: maximum number of distinct media in a window.

    Returns:
        The number of each row's window, from 0.
    """
    number, held = 0, set[Media]()
    found: dict[tuple[Media, ...], int] = {}
    for media in dict.fromkeys(row.media for row in rows):
        if held and len(held | set(media)) > capacity:
            number, held = number + 1, set()
        held |= set(media)
        found[media] = number
    return [found[row.media] for row in rows]

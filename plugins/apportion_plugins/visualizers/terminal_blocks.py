"""Tables of many columns, as several tables that fit the width of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

__all__ = ["Column", "tables"]

GAP = 2


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: its head, which is wrapped between words.
        cells: a text for each row, on one line.
        right: align to the right, as for numbers.
    """

    head: str
    cells: Sequence[str]
    right: bool = True

    @property
    def width(self) -> int:
        """Columns of the terminal that it takes at least."""
        return max(map(cell_len, (*self.head.split(), *self.cells)), default=1)


def tables(
    first: Sequence[Column], groups: Sequence[Sequence[Column]], room: int, *, gap: int = GAP
) -> Iterator[Table]:
    """Tables of at most ``room`` columns, each with the first columns and as many groups of others as fit.

    Args:
        first: columns that every table repeats, such as the names of the rows.
        groups: the other columns, in groups that stay together; each table has at least one group.
        room: width of the terminal.
        gap: space between columns.
    """
    block: list[Column] = []
    for group in groups:
        if block and sum(one.width + gap for one in (*first, *block, *group)) - gap > room:
            yield _table([*first, *block], gap)
            block = []
        block += group
    yield _table([*first, *block], gap)


def _table(columns: Sequence[Column], gap: int) -> Table:
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        justify = "right" if column.right else "left"
        table.add_column(Text(column.head, justify=justify), justify=justify, min_width=column.width)  # type: ignore[arg-type]
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, row))
    return table

"""Tables of the terminal view, for features and groups: name, attribution, error, bar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.groups import Group, half_widths_of
from apportion_plugins.visualizers.labels import ellipsis, one_line, text_is_name
from apportion_plugins.visualizers.numbers import DECIMALS, Numbers, half_widths
from apportion_plugins.visualizers.palette import strengths
from apportion_plugins.visualizers.pen import Pen

__all__ = ["group_table", "value_table"]

GAP = 2
SHORTEST, LONGEST = 6, 24
"""Minimum and maximum width of half a bar, in columns."""


def value_table(attribution: Attribution, rows: Sequence[int], pen: Pen, width: int) -> Table:
    """A row for each feature of ``rows``, in at most ``width`` columns."""
    features = [attribution.features[i] for i in rows]
    values, half = np.asarray(attribution.values), half_widths(attribution)
    columns = [("feature", [pen.cell(one_line(f.name)) for f in features])]
    if not all(map(text_is_name, features)):
        columns.append(("text", [pen.cell(one_line(f.text)) for f in features]))
    return _table(columns, attribution.unit, values, half, rows, pen, width)


def group_table(attribution: Attribution, groups: Sequence[Group], rows: Sequence[int], pen: Pen, width: int) -> Table:
    """A row for each group of ``rows``, with its parts indented below it, in at most ``width`` columns.

    Groups that were not expanded are shown with their number of features.
    """
    indent = "  " if width >= 60 else " "
    names = [indent * groups[i].depth + pen.cell(one_line(groups[i].text)) for i in rows]
    sizes = [str(groups[i].size) if groups[i].closed else "" for i in rows]
    values = np.array([group.value for group in groups])
    half = half_widths_of(groups)
    columns = [("group", names), *([("size", sizes)] if any(sizes) else [])]
    return _table(columns, attribution.unit, values, half, rows, pen, width)


def _table(
    columns: list[tuple[str, list[str]]],
    unit: str,
    values: Float64[np.ndarray, " N"],
    half: Float64[np.ndarray, " N"] | None,
    rows: Sequence[int],
    pen: Pen,
    width: int,
) -> Table:
    numbers = Numbers(values, decimals=DECIMALS, signed=pen.signed)
    figures = [(unit, [pen.say(numbers.signed(values[i])) for i in rows])]
    if half is not None:
        figures.append((pen.say("±"), [pen.say(numbers.plain(half[i])) for i in rows]))
    taken = sum(_widest(column) + GAP for column in figures)
    bar = max(SHORTEST, min(LONGEST, (width - taken) // 5))
    taken += (2 if pen.signed else 1) * bar + 1
    columns = [(name, list(map(pen.say, texts))) for name, texts in _shortened(columns, width - taken)]
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for name, _ in columns:
        table.add_column(name, no_wrap=True)
    for name, _ in figures:
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column(Text(pen.say("−").rjust(bar) + " +" if pen.signed else ""), no_wrap=True)
    strength = strengths(values)
    cells = zip(*(column for _, column in (*columns, *figures)), strict=True)
    for i, texts in zip(rows, cells, strict=True):
        table.add_row(*map(Text, texts), _bar(pen, float(strength[i]), bar))
    return table


def _bar(pen: Pen, strength: float, half: int) -> Text:
    left, right, style = pen.bar(strength, half)
    return Text.assemble((left, style), (pen.say("│"), "dim"), (right.rstrip(), style))


def _widest(column: tuple[str, list[str]]) -> int:
    return max(map(cell_len, (column[0], *column[1])))


def _shortened(columns: list[tuple[str, list[str]]], room: int) -> list[tuple[str, list[str]]]:
    """The columns with long texts elided to fit; narrow columns leave more room for the next."""
    shortened = []
    for i, (name, texts) in enumerate(columns):
        share = max(len(name), room // (len(columns) - i) - GAP)
        rest = sum(_widest(column) + GAP for column in columns[i + 1 :])
        share = max(share, room - GAP - rest)
        shortened.append((name, [ellipsis(text, share) for text in texts]))
        room -= _widest(shortened[-1]) + GAP
    return shortened

"""Terminal view of results side by side: a table of values, and the agreement of each pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxtyping import Float64
from numpy import ndarray
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from apportion.results.comparison import ResultComparison
from apportion_plugins.visualizers.comparison_facts import (
    FEW,
    about,
    comparison_notes,
    correlation_text,
    numbered,
    overlap_text,
    pair_rows,
    top_count,
    value_cells,
)
from apportion_plugins.visualizers.facts import contrast_text, target_text
from apportion_plugins.visualizers.labels import ellipsis, one_line, text_is_name
from apportion_plugins.visualizers.numbers import INTERVAL
from apportion_plugins.visualizers.pen import Pen
from apportion_plugins.visualizers.selection import part_of_target
from apportion_plugins.visualizers.terminal_blocks import Column, tables

__all__ = ["ComparisonView"]

LONGEST = 32
"""Longest label of a feature, in columns."""


@dataclass(frozen=True)
class ComparisonView:
    """A rich renderable, adapted to the character set of the console that prints it.

    Attributes:
        comparison: results of the same target.
    """

    comparison: ResultComparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Header, values, agreement, notes."""
        pen = Pen(ascii_only=options.ascii_only, coloured=bool(console.color_system) and not console.no_color)
        names = [pen.cell(name) for name in numbered(self.comparison)]
        yield self._header(pen, names)
        for table in self._values(pen, names, options.max_width):
            yield Text()
            yield table
        if len(names) > 1:
            yield from self._agreement(pen, names, options.max_width)
        notes = comparison_notes(self.comparison)
        if any(errors is not None for errors in self.comparison.std_errors):
            notes.append(f"±: 95 % interval, {INTERVAL} standard errors of the sampling.")
        yield from [Text(), *(Text(pen.say(note), style="dim") for note in notes)] if notes else []

    def _header(self, pen: Pen, names: list[str]) -> Table:
        results = self.comparison.results
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, result in zip(names, results, strict=True):
            grid.add_row(Text(name), Text(pen.say(about(result)), style="bold"))
        quoted = f"“{pen.cell(target_text(results[0]))}”"
        if results[0].provenance.contrast is not None:
            quoted += f" against “{pen.cell(contrast_text(results[0]))}”"
        grid.add_row(Text("target"), Text(pen.say(quoted)))
        if self.comparison.token is not None:
            grid.add_row(Text("shown"), Text(pen.cell(part_of_target(results[0], self.comparison.token))))
        return grid

    def _values(self, pen: Pen, names: list[str], room: int) -> Iterator[Table]:
        """Values of as many results as fit beside the features, then of the next ones."""
        features = self.comparison.results[0].features
        labels = [pen.cell(ellipsis(one_line(feature.name), LONGEST)) for feature in features]
        first = [Column("feature", labels, right=False)]
        if not all(map(text_is_name, features)):
            texts = [pen.cell(ellipsis(one_line(feature.text), LONGEST)) for feature in features]
            first.append(Column("text", texts, right=False))
        columns = [
            Column(pen.say(f"{name}, {one_line(result.unit)}"), list(map(pen.say, value_cells(self.comparison, i))))
            for i, (name, result) in enumerate(zip(names, self.comparison.results, strict=True))
        ]
        return tables(first, [[column] for column in columns], room)

    def _agreement(self, pen: Pen, names: list[str], room: int) -> RenderResult:
        """Rank correlations, and numbers of top features in common: of each pair in a row, or as matrices."""
        if len(names) <= FEW:
            heads, pairs = pair_rows(self.comparison)
            between = [f"{names[i]} and {names[j]}" for i, j, _ in pairs]
            cells = [Column(head, [pen.say(row[2][c]) for row in pairs]) for c, head in enumerate(heads)]
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
            table.add_column("results", overflow="fold")
            for column in cells:
                table.add_column(Text(column.head), justify="right", min_width=column.width)
            for row in zip(between, *(column.cells for column in cells), strict=True):
                table.add_row(*map(Text, row))
            yield from (Text(), table)
            return
        top = top_count(self.comparison)
        found = self.comparison.rank_correlation
        yield from self._matrix(pen, "Rank correlation", names, room, found, correlation_text)
        common = self.comparison.top_overlap()
        yield from self._matrix(
            pen, f"Number of the top {top} in common", names, room, common, lambda share: overlap_text(share, top)
        )

    def _matrix(
        self,
        pen: Pen,
        title: str,
        names: list[str],
        room: int,
        found: Float64[ndarray, "R R"],
        text: Callable[[float], str],
    ) -> RenderResult:
        """A matrix whose rows are named, if there is room for that, and whose columns are numbered."""
        columns = [
            Column(str(j + 1), ["·" if i == j else text(found[i, j]) for i in range(len(names))])
            for j in range(len(names))
        ]
        columns = [Column(one.head, list(map(pen.say, one.cells))) for one in columns]
        taken = sum(column.width + 1 for column in columns)
        numbers = [str(i + 1) for i in range(len(names))]
        longest = room - taken - 1
        rows = [ellipsis(name, longest) for name in names] if longest >= 8 else numbers
        yield from (Text(), Text(title, style="dim"))
        yield from tables([Column("", rows, right=longest < 8)], [[column] for column in columns], room, gap=1)

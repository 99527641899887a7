"""Terminal view of results side by side: a table of values, and the agreement of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from apportion.results.comparison import ResultComparison
from apportion_plugins.visualizers.comparison_facts import agreements, value_cells
from apportion_plugins.visualizers.facts import contrast_text, estimand_of, target_text
from apportion_plugins.visualizers.labels import ellipsis, one_line, text_is_name
from apportion_plugins.visualizers.numbers import INTERVAL
from apportion_plugins.visualizers.pen import Pen

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
        """Header, values, agreement, note."""
        pen = Pen(ascii_only=options.ascii_only, coloured=bool(console.color_system) and not console.no_color)
        names = [pen.cell(one_line(name)) for name in self.comparison.names]
        yield self._header(pen, names)
        yield Text()
        yield self._values(pen, names)
        if len(names) > 1:
            yield Text()
            yield self._agreement(pen, names)
        if any(result.std_error is not None for result in self.comparison.results):
            yield Text()
            yield Text(pen.say(f"±: 95 % interval, {INTERVAL} standard errors of the sampling."), style="dim")

    def _header(self, pen: Pen, names: list[str]) -> Table:
        results = self.comparison.results
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, result in zip(names, results, strict=True):
            grid.add_row(Text(name), Text(pen.say(estimand_of(result)), style="bold"))
        quoted = f"“{pen.cell(target_text(results[0]))}”"
        if results[0].provenance.contrast is not None:
            quoted += f" against “{pen.cell(contrast_text(results[0]))}”"
        grid.add_row(Text("target"), Text(pen.say(quoted)))
        return grid

    def _values(self, pen: Pen, names: list[str]) -> Table:
        features = self.comparison.results[0].features
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("feature", no_wrap=True)
        labels = [[pen.cell(ellipsis(one_line(feature.name), LONGEST)) for feature in features]]
        if not all(map(text_is_name, features)):
            table.add_column("text", no_wrap=True)
            labels.append([pen.cell(ellipsis(one_line(feature.text), LONGEST)) for feature in features])
        columns = list(labels)
        for name, result in zip(names, self.comparison.results, strict=True):
            cells = [pen.say(text) for text in value_cells(result)]
            table.add_column(Text(f"{name}, {one_line(result.unit)}"), justify="right", min_width=_widest(cells))
            columns.append(cells)
        for row in zip(*columns, strict=True):
            table.add_row(*map(Text, row))
        return table

    def _agreement(self, pen: Pen, names: list[str]) -> Table:
        """Rank correlation of each pair, and the share of the top features that it has in common."""
        heads, pairs = agreements(self.comparison)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("results", overflow="fold")
        for head in heads:
            table.add_column(head, justify="right", min_width=_widest(head.split()))
        for i, j, cells in pairs:
            table.add_row(*map(Text, (f"{names[i]} and {names[j]}", *map(pen.say, cells))))
        return table


def _widest(texts: Sequence[str]) -> int:
    """Columns of the widest text, which must not be broken."""
    return max(map(cell_len, texts), default=0)

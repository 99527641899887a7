"""Terminal view of evaluations: a table of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from apportion.results.evaluation import Evaluation
from apportion_plugins.visualizers.evaluation_facts import (
    cost_columns,
    estimands,
    evaluation_facts,
    metric_columns,
    metric_table,
)
from apportion_plugins.visualizers.labels import ellipsis, quotable
from apportion_plugins.visualizers.names import evaluation_names
from apportion_plugins.visualizers.pen import Pen
from apportion_plugins.visualizers.terminal_blocks import Column, tables

__all__ = ["EvaluationView"]

LONGEST = 32
"""Longest name of a result, in columns."""


@dataclass(frozen=True)
class EvaluationView:
    """A rich renderable, adapted to the character set of the console that prints it.

    Attributes:
        evaluations: evaluations of the same target.
    """

    evaluations: Sequence[Evaluation]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Header, table, footer."""
        pen = Pen(ascii_only=options.ascii_only, coloured=bool(console.color_system) and not console.no_color)
        yield self._header(pen)
        for table in [self._table(pen)] if len(self.evaluations) == 1 else self._tables(pen, options.max_width):
            yield Text()
            yield table
        yield Text()
        yield self._footer(pen)

    def _header(self, pen: Pen) -> Table:
        one = self.evaluations[0]
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, text in estimands(self.evaluations):
            label = name if len(self.evaluations) > 1 else "estimand"
            grid.add_row(Text(pen.cell(label)), Text(pen.say(text), style="bold"))
        quoted = f"“{pen.cell(quotable(one.target))}”"
        if one.contrast is not None:
            quoted += f" against “{pen.cell(quotable(one.contrast))}”"
        grid.add_row(Text("target"), Text(pen.say(quoted)))
        return grid

    def _tables(self, pen: Pen, room: int) -> Iterator[Table]:
        """A row for each result: its cost, and then as many metrics as fit."""
        names = [pen.cell(ellipsis(name, LONGEST)) for name in evaluation_names(self.evaluations)]
        groups = [cost_columns(self.evaluations), *metric_columns(self.evaluations)]
        columns = [[Column(pen.say(c.head), list(map(pen.say, c.cells))) for c in group] for group in groups if group]
        return tables([Column("result", names, right=False)], columns, room)

    def _table(self, pen: Pen) -> Table:
        found = metric_table(self.evaluations[0])
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("metric", no_wrap=True)
        table.add_column("better", no_wrap=True)
        for head in found.heads:
            table.add_column(Text(pen.cell(head)), no_wrap=True, justify="right")
        for metric, better, cells in found.rows:
            table.add_row(*map(Text, [pen.cell(metric), pen.say(better), *map(pen.say, cells)]))
        return table

    def _footer(self, pen: Pen) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, fact in evaluation_facts(self.evaluations):
            grid.add_row(Text(name), Text(pen.say(fact)), style="dim")
        return grid

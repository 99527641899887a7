"""Terminal view of evaluations: a table of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from apportion.results.evaluation import Evaluation
from apportion_plugins.visualizers.evaluation_facts import estimands, evaluation_facts, metric_table
from apportion_plugins.visualizers.labels import quotable
from apportion_plugins.visualizers.pen import Pen

__all__ = ["EvaluationView"]


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
        yield Text()
        yield self._table(pen)
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

    def _table(self, pen: Pen) -> Table:
        found = metric_table(self.evaluations)
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

"""Terminal view of evaluations: a table of metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from apportion.protocols.metrics import Measurement
from apportion.results.evaluation import Evaluation
from apportion_plugins.visualizers.labels import one_line, quotable
from apportion_plugins.visualizers.names import evaluation_names
from apportion_plugins.visualizers.numbers import INTERVAL, Numbers
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
        for name, each in zip(evaluation_names(self.evaluations), self.evaluations, strict=True):
            label = name if len(self.evaluations) > 1 else "estimand"
            grid.add_row(Text(pen.cell(label)), Text(pen.say(one_line(each.estimand)), style="bold"))
        quoted = f"“{pen.cell(quotable(one.target))}”"
        if one.contrast is not None:
            quoted += f" against “{pen.cell(quotable(one.contrast))}”"
        grid.add_row(Text("target"), Text(pen.say(quoted)))
        return grid

    def _table(self, pen: Pen) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("metric", no_wrap=True)
        table.add_column("better", no_wrap=True)
        names = evaluation_names(self.evaluations) if len(self.evaluations) > 1 else ["value"]
        for name in names:
            table.add_column(Text(pen.cell(name)), no_wrap=True, justify="right")
            table.add_column(Text(pen.say("±")), no_wrap=True, justify="right")
        if self._has_yardsticks:
            table.add_column("random order", no_wrap=True, justify="right")
        for metric in dict.fromkeys(name for one in self.evaluations for name in one.measurements):
            measured = [one for one in self.evaluations if metric in one.measurements]
            higher = measured[0].higher_is_better[metric]
            cells = [cell for one in self.evaluations for cell in _cells(one.measurements.get(metric))]
            if self._has_yardsticks:
                cells.append(_random(measured[0], metric))
            row = [pen.cell(one_line(metric)), pen.say("↑ higher" if higher else "↓ lower"), *map(pen.say, cells)]
            table.add_row(*map(Text, row))
        return table

    @property
    def _has_yardsticks(self) -> bool:
        return any(one.random for one in self.evaluations)

    def _footer(self, pen: Pen) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        anew = sum(one.evaluations for one in self.evaluations)
        facts = [
            ("features", f"{self.evaluations[0].n_features:,}"),
            ("cost", f"{anew:,} evaluation{'' if anew == 1 else 's'} in addition to those of the run"),
            ("seed", str(self.evaluations[0].seed)),
        ]
        if any(m.std_error is not None for one in self.evaluations for m in one.measurements.values()):
            facts.append(("note", f"±: 95 % interval, {INTERVAL} standard errors of the metric's own draws."))
        orders = max((len(some) for one in self.evaluations for some in one.random.values()), default=0)
        if orders:
            facts.append(("note", f"random order: mean over {orders} random orders of the features, as a yardstick."))
        for name, fact in facts:
            grid.add_row(Text(name), Text(pen.say(fact)), style="dim")
        return grid


def _cells(found: Measurement | None) -> tuple[str, str]:
    """Value and half-width of its interval; empty if nothing was measured, or if it is exact."""
    if found is None:
        return "", ""
    numbers = Numbers([found.value])
    if found.std_error is None:
        return numbers.plain(found.value), ""
    return numbers.plain(found.value), numbers.plain(INTERVAL * found.std_error)


def _random(one: Evaluation, metric: str) -> str:
    """Value of a metric for random orders; empty if it was not measured."""
    value = one.random_value(metric)
    return "" if math.isnan(value) else Numbers([value]).plain(value)

"""Terminal view: the coloured prompt, a table with bars, and the cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from apportion.protocols.features import Segment
from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.context_reliance import ContextReliance
from apportion.results.evaluation import Evaluation
from apportion.results.scored import scored
from apportion_plugins.visualizers.facts import contrast_text, estimand_of, meaning_of_signs, summary, target_text
from apportion_plugins.visualizers.groups import Group, groups_of, has_groups, strongest
from apportion_plugins.visualizers.labels import one_line, prose
from apportion_plugins.visualizers.own_target import target_segments
from apportion_plugins.visualizers.palette import strengths
from apportion_plugins.visualizers.pen import Pen
from apportion_plugins.visualizers.selection import table_rows
from apportion_plugins.visualizers.terminal_comparison import ComparisonView
from apportion_plugins.visualizers.terminal_evaluation import EvaluationView
from apportion_plugins.visualizers.terminal_reliance import RelianceView
from apportion_plugins.visualizers.terminal_steps import step_table
from apportion_plugins.visualizers.terminal_table import group_table, value_table

__all__ = ["Terminal", "TerminalView"]

STRONG = 0.5


class Terminal:
    """The coloured prompt and a table, fitted to the terminal that prints them."""

    def render(self, attribution: Attribution, *, sort: bool = False, max_features: int | None = 40) -> TerminalView:
        """Make a renderable for ``rich.console.Console.print``.

        Args:
            attribution: the result.
            sort: sort the table by magnitude, largest first, instead of prompt order (or the tree of groups, if the
                method gave one).
            max_features: maximum number of table rows, by magnitude; a note says how many are omitted. ``None`` for
                all. The prompt is always coloured in full.

        Raises:
            InputError: ``max_features`` is not a positive whole number.
        """
        rows, hidden = table_rows(np.asarray(attribution.values), max_features, sort=sort)
        if sort or not has_groups(attribution):
            return TerminalView(attribution, rows, hidden)
        groups = groups_of(attribution)
        rows, hidden = strongest(groups, max_features, "max_features")
        if any(groups[i].closed for i in rows):
            hidden.append("Groups with a size were not expanded: their features share the score.")
        return TerminalView(attribution, rows, hidden, groups)

    def render_evaluations(self, evaluations: Sequence[Evaluation]) -> EvaluationView:
        """Make a renderable table of metrics, with a column for each evaluation.

        Args:
            evaluations: evaluations of the same target.
        """
        return EvaluationView(evaluations)

    def render_comparison(self, comparison: ResultComparison) -> ComparisonView:
        """Make a renderable table of values, with a column for each result.

        Args:
            comparison: results of the same target.
        """
        return ComparisonView(comparison)

    def render_context_reliance(self, found: ContextReliance) -> RelianceView:
        """Make a renderable of the output, the context, and the cues of each sensitive token.

        Args:
            found: the result.
        """
        return RelianceView(found)


@dataclass(frozen=True)
class TerminalView:
    """A rich renderable, adapted to the width, colours and character set of the console that prints it.

    Attributes:
        attribution: the result.
        rows: indices of features (or groups) in the table, in order.
        notes: notes on what the table omits.
        groups: groups of features, if the table shows them.
    """

    attribution: Attribution
    rows: Sequence[int]
    notes: Sequence[str] = ()
    groups: Sequence[Group] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Header, prompt, table, footer."""
        coloured = bool(console.color_system) and not console.no_color
        pen = Pen(ascii_only=options.ascii_only, coloured=coloured, signed=self.attribution.signed)
        yield self._header(pen)
        yield Text()
        if self.attribution.segments:
            yield Padding(self._coloured(self.attribution.segments, pen), (0, 2))
            yield Text()
        own = target_segments(self.attribution)
        if own:
            yield Padding(self._coloured(own, pen), (0, 2))
            yield Text()
        if self.groups:
            yield group_table(self.attribution, self.groups, self.rows, pen, options.max_width)
        else:
            yield value_table(self.attribution, self.rows, pen, options.max_width)
        for note in self.notes:
            yield Text(pen.say(note), style="dim")
        if self.attribution.step_scores:
            steps, notes = step_table(self.attribution, pen)
            yield Text()
            yield steps
            yield from (Text(pen.say(note), style="dim") for note in notes)
        yield Text()
        yield self._footer(pen)

    def _header(self, pen: Pen) -> Table:
        quoted = f"“{pen.cell(target_text(self.attribution))}”"
        if self.attribution.provenance.contrast is not None:
            quoted += f" against “{pen.cell(contrast_text(self.attribution))}”"
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text("estimand"), Text(pen.say(estimand_of(self.attribution)), style="bold"))
        grid.add_row(Text("target"), Text(pen.say(quoted)))
        grid.add_row(Text("model"), Text(pen.say(one_line(self.attribution.provenance.model or "?"))))
        grid.add_row(Text("reading"), self._legend(pen))
        return grid

    def _legend(self, pen: Pen) -> Text:
        if not self.attribution.signed:
            strongest = "" if pen.coloured or not self.attribution.segments else " Largest where marked [+]."
            return Text(pen.say(meaning_of_signs(self.attribution) + strongest))
        raises, lowers = ((pen.say(f" {sign} "), pen.background(s)) for sign, s in (("+", 1.0), ("−", -1.0)))
        provenance = self.attribution.provenance
        what = "the target's score" if not scored(provenance) else f"the {scored(provenance)}"
        legend = Text.assemble(raises, " raises, ", lowers, f" lowers {pen.say(what)}")
        if provenance.target_rise:
            legend.append(pen.say(f"; a rise {provenance.target_rise}"))
        if not pen.coloured and self.attribution.segments:
            legend.append(pen.say("; strongest where marked [+] [−]"))
        return legend

    def _coloured(self, segments: Sequence[Segment], pen: Pen) -> Text:
        """Running text; all segments of a feature have its colour, other text is dim."""
        strength = strengths(np.asarray(self.attribution.values))
        text = Text(overflow="fold")
        for segment in segments:
            shown = prose(segment.text)
            if segment.feature is None:
                text.append(pen.say(shown), Style(dim=True))
                continue
            own = float(strength[segment.feature])
            # A line break that is (part of) a feature must be visible.
            # The mark must precede the line break, or it would appear on the next line.
            body, end = (shown.rstrip("\n"), len(shown) - len(shown.rstrip("\n")))
            text.append(pen.say(body.replace("\n", "⏎\n")), pen.background(own))
            if not pen.coloured and abs(own) >= STRONG:
                text.append(pen.say("[+]" if own > 0 else "[−]"))
            text.append(pen.say("⏎\n" * end), pen.background(own))
        return text

    def _footer(self, pen: Pen) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, fact in summary(self.attribution):
            grid.add_row(Text(name), Text(pen.say(one_line(fact))), style="dim")
        return grid

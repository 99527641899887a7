"""Terminal view of a context reliance: the output, the context, and the cues of each sensitive token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from apportion.results.context_reliance import ContextReliance, SensitiveToken
from apportion_plugins.visualizers.labels import ellipsis, one_line, prose
from apportion_plugins.visualizers.palette import strengths
from apportion_plugins.visualizers.pen import Pen
from apportion_plugins.visualizers.reliance_facts import (
    cue_numbers,
    facts_of,
    findings,
    probabilities,
    reading,
    score_numbers,
)

__all__ = ["RelianceView"]

LABEL, SHORT_LABEL = 24, 14
WIDE = 110
"""Columns of the terminal from which labels have their full length."""
MOST_CUES = 8


@dataclass(frozen=True)
class RelianceView:
    """A rich renderable, adapted to the colours and character set of the console that prints it.

    Attributes:
        found: the result.
    """

    found: ContextReliance

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Header, context, output, table, facts."""
        pen = Pen(ascii_only=options.ascii_only, coloured=bool(console.color_system) and not console.no_color)
        yield Text(pen.say(findings(self.found)), style="bold")
        yield Text(pen.say(reading(self.found)) + ".", style="dim")
        yield Text()
        for name, text in (("prompt", self._prompt(pen)), ("output", self._output(pen))):
            yield Text(name, style="dim")
            yield Padding(text, (0, 2))
            yield Text()
        if self.found.sensitive.any():
            yield self._table(pen, LABEL if options.max_width >= WIDE else SHORT_LABEL)
            yield Text()
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, fact in facts_of(self.found):
            grid.add_row(Text(name), Text(pen.say(one_line(fact))), style="dim")
        yield grid

    def _prompt(self, pen: Pen) -> Text:
        """The prompt with the cues of all tokens; what is not the context is dim."""
        result = self.found.attribution
        cued = {cue.index for token in self.found.sensitive_tokens for cue in token.cues}
        strength = strengths(np.asarray(result.values))
        text = Text(overflow="fold")
        for segment in result.segments:
            shown = prose(segment.text)
            if segment.feature is None:
                text.append(pen.say(shown), Style(dim=True))
            elif segment.feature in cued:
                body = shown.rstrip()
                text.append(pen.say(body if pen.coloured else f"[{body}]"), pen.background(strength[segment.feature]))
                text.append(pen.say(shown[len(body) :]))
            else:
                text.append(pen.say(shown))
        return text

    def _output(self, pen: Pen) -> Text:
        """The output with its sensitive tokens."""
        strength = strengths(np.nan_to_num(self.found.scores))
        text = Text(overflow="fold")
        for i, token in enumerate(self.found.tokens):
            shown = prose(token)
            if not self.found.sensitive[i]:
                text.append(pen.say(shown))
                continue
            body = shown.lstrip()
            text.append(pen.say(shown[: len(shown) - len(body)]))
            text.append(pen.say(body if pen.coloured else f"[{body}]"), pen.background(float(strength[i])))
        return text

    def _table(self, pen: Pen, label: int) -> Table:
        """A row for each sensitive token."""
        scores = score_numbers(self.found)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        table.add_column("token", no_wrap=True)
        heads = [f"{one_line(self.found.metric)}\n({self.found.unit})", pen.say("probability\nwithout → with")]
        for head in heads:
            table.add_column(Text(head, justify="right"), justify="right", no_wrap=True)
        table.add_column(Text("without\ncontext"), no_wrap=True)
        table.add_column(Text(pen.say(f"cues\n({self.found.attribution.unit})")), overflow="fold")
        for token in self.found.sensitive_tokens:
            before, after = probabilities(token)
            alternative = "(the same)" if token.contextless == token.text else one_line(token.contextless)
            table.add_row(
                Text(pen.cell(ellipsis(one_line(token.text), label))),
                Text(pen.say(scores.plain(token.score))),
                Text(pen.say(f"{before} → {after}")),
                Text(pen.cell(ellipsis(alternative, label))),
                Text(self._cues(token, pen)),
            )
        return table

    def _cues(self, token: SensitiveToken, pen: Pen) -> str:
        numbers = cue_numbers(self.found)
        shown = [
            f"{pen.cell(ellipsis(one_line(cue.feature.name), LABEL))} {pen.say(numbers.signed(cue.value))}"
            for cue in token.cues[:MOST_CUES]
        ]
        more = len(token.cues) - MOST_CUES
        return ", ".join(shown + ([f"and {more} more"] if more > 0 else [])) or "none"

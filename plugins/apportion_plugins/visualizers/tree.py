"""Tree of a drill-down: groups in prompt order, with their parts indented below them, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page, PlotFigure
from apportion_plugins.visualizers.drawing import Axes
from apportion_plugins.visualizers.facts import error_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.groups import Group, down_to, groups_of, strongest
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.selection import check_limit, part_of_target

__all__ = ["Tree"]

ROW, AXIS, BARS = 0.25, 0.52, 3.2
INDENT, BRANCH = 0.24, 0.17
COLUMNS, LEAST_COLUMNS = 48, 20
TAG_GAP = 0.08

_READING = {
    True: "Lighter bars: groups whose score is the sum of the scores of their parts below.",
    False: "Lighter bars: groups with their parts below. Each is left out by itself, so scores need not add up.",
}


class Tree:
    """An outline, like that of a file system, with a bar for each group of features."""

    def render(
        self,
        attribution: Attribution,
        *,
        token: int | None = None,
        depth: int | None = None,
        max_rows: int | None = 60,
    ) -> PlotFigure:
        """Draw the groups of a result of ``method="hierarchical"``.

        Bars of groups are lighter if their parts are shown below them.

        Args:
            attribution: the result.
            token: position of a target token to show; ``None`` for the whole target.
            depth: number of levels to show; ``None`` for all.
            max_rows: maximum number of groups and features to show, those of largest magnitude and the groups that
                contain them; a note says how many are omitted. ``None`` for all.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("tree.png")`` saves it.

        Raises:
            ResultError: the result has no tree.
            InputError: there is no such token, a limit is not a positive whole number, or the figure would be too
                tall.
        """
        check_limit("depth", depth)
        groups = down_to(groups_of(attribution, token), depth)
        check_limit("max_rows", len(groups) if max_rows is None else max_rows, parts.MOST_ROWS)
        rows, hidden = strongest(groups, max_rows, "max_rows")
        texts = [one_line(groups[i].text) for i in rows]
        fonts = lettering([*parts.figure_texts(attribution), *texts, part_of_target(attribution, token)])
        page = Page(fonts)
        lines = [_line(page, groups, i, rows) for i in rows]
        values, half = (np.array([getattr(groups[i], name) for i in rows]) for name in ("value", "half_width"))
        faint = np.array([line.opened for line in lines])
        bars = Bars(values, None if attribution.std_error is None else half, Numbers(values, digits=4), faint)
        notes = [
            *hidden,
            *([_READING[attribution.estimand == "Owen value"]] if faint.any() else []),
            *error_notes(attribution, "Whiskers"),
            *fonts.notes,
        ]
        _draw(page, attribution, part_of_target(attribution, token), lines, bars, notes)
        return page.figure


@dataclass(frozen=True)
class _Line:
    """A row of the outline.

    Attributes:
        text: name of the group.
        depth: level of indentation.
        parent: row of the group that contains it.
        tag: note on parts that are not shown.
        opened: some of its parts are shown.
    """

    text: str
    depth: int
    parent: int | None
    tag: str
    opened: bool

    def width(self, page: Page) -> float:
        """Width in inches, including the indentation."""
        tag = page.width_of([self.tag], NOTE) + TAG_GAP if self.tag else 0.0
        return self.depth * INDENT + page.width_of([self.text], parts.LABEL) + tag


def _line(page: Page, groups: Sequence[Group], i: int, rows: Sequence[int]) -> _Line:
    group, parent = groups[i], groups[i].parent
    shown = sum(groups[row].parent == i for row in rows)
    return _Line(
        text=page.drawable(group.label(max(LEAST_COLUMNS, COLUMNS - 3 * group.depth))),
        depth=group.depth,
        parent=None if parent is None else rows.index(parent),
        tag=group.tag(shown),
        opened=shown > 0,
    )


def _draw(
    page: Page, attribution: Attribution, part: str, lines: Sequence[_Line], bars: Bars, notes: list[str]
) -> None:
    outline = max(line.width(page) for line in lines) + 0.1
    inner = bars.width(page, BARS)
    width = outline + inner + 2 * MARGIN
    title = parts.header(attribution, page, width, part=part)
    notes = [line for note in notes for line in page.wrapped(note, width - 2 * MARGIN, NOTE)]
    top, body = parts.header_height(title), ROW * len(lines)
    page.resize(width, top + body + AXIS + parts.notes_height(notes))
    _draw_outline(page, page.axes(MARGIN, top, outline, body), outline, lines)
    axes = page.axes(MARGIN + outline, top, inner, body)
    bars.draw(page, axes, inner)
    _draw_bands(axes, len(lines))
    axes.set_yticks([])
    parts.plain_axes(page, axes, f"score of the group or feature ({attribution.unit})")
    parts.draw_header(page, title)
    parts.draw_notes(page, notes, top + body + AXIS)


def _draw_outline(page: Page, axes: Axes, width: float, lines: Sequence[_Line]) -> None:
    """Draw the texts and the lines from groups to their parts; one unit is an inch."""
    axes.set_xlim(0, width)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.axis("off")
    _draw_bands(axes, len(lines))
    ink = axes.spines["left"].get_edgecolor()
    for row, line in enumerate(lines):
        left = line.depth * INDENT
        if line.parent is not None:
            x = left - BRANCH
            style: dict[str, Any] = {"color": ink, "alpha": 0.45, "linewidth": 0.7}
            before = max(i for i in range(row) if i == line.parent or lines[i].parent == line.parent)
            start = before + 0.4 if before == line.parent else before
            axes.plot([x, x, left - 0.05], [start, row, row], **style)
        style = {"va": "center_baseline", "ha": "left"}
        axes.text(left, row, line.text, **(page.style(parts.LABEL) | style))
        if line.tag:
            x = left + page.width_of([line.text], parts.LABEL) + TAG_GAP
            axes.text(x, row, line.tag, alpha=0.6, **(page.style(NOTE) | style))


def _draw_bands(axes: Axes, rows: int) -> None:
    """Shade every other row, which guides the eye from a text to its bar."""
    ink = axes.spines["left"].get_edgecolor()
    for row in range(0, rows, 2):
        axes.axhspan(row - 0.5, row + 0.5, color=ink, alpha=0.04, linewidth=0, zorder=0)

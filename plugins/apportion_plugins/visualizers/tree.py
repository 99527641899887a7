"""Tree of a drill-down: groups in prompt order, with their parts indented below them, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page, drawn
from apportion_plugins.visualizers.drawing import Axes, rcParams
from apportion_plugins.visualizers.facts import half_width_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.groups import Group, down_to, groups_of, half_widths_of, strongest
from apportion_plugins.visualizers.header import header_of
from apportion_plugins.visualizers.labels import SHORT_COLUMNS, one_line
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import check_limit, part_of_target

__all__ = ["Tree"]

ROW, LEAST_ROW, AXIS = 0.25, 0.18, 0.52
BARS, LEAST_BARS = 3.2, 0.9
INDENT, BRANCH = 0.24, 0.17
COLUMNS, LEAST_COLUMNS = 48, 20
TAG_GAP = 0.08
LEAST_TEXT = 0.7
"""Least width of long texts in inches, if the user chose the width of the figure."""

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
        title: str | None = AUTO,
        labels: str = "full",
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw the groups of a result of ``method="hierarchical"``.

        Bars of groups are lighter if their parts are shown below them.

        Args:
            attribution: the result.
            token: position of a target token to show; ``None`` for the whole target.
            depth: number of levels to show; ``None`` for all.
            max_rows: maximum number of groups and features to show, those of largest magnitude and the groups that
                contain them; a note says how many are omitted. ``None`` for all.
            title: text above the figure; ``"auto"`` for estimand, target and model, ``None`` for none.
            labels: ``"full"`` for texts that may be long, ``"short"`` for their first words.
            size: width and height in inches, such as ``(6.5, 4)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("tree.png")`` saves it.

        Raises:
            ResultError: the result has no tree.
            InputError: there is no such token, an option is out of range, the figure would be too tall, or its content
                does not fit ``size``.
        """
        look = Look(title, labels, size, dpi)
        check_limit("depth", depth)
        groups = down_to(groups_of(attribution, token), depth)
        check_limit("max_rows", len(groups) if max_rows is None else max_rows, parts.MOST_ROWS)
        rows, hidden = strongest(groups, max_rows, "max_rows")
        texts = [one_line(groups[i].text) for i in rows]
        part = part_of_target(attribution, token)
        fonts = lettering([*parts.figure_texts(attribution, title), *texts, part])
        shown = [groups[i] for i in rows]
        values, half = np.array([group.value for group in shown]), half_widths_of(shown)
        faint = np.array([any(groups[row].parent == i for row in rows) for i in rows])
        bars = Bars(values, half, Numbers(values, digits=4, signed=attribution.signed), faint)
        notes = [
            *hidden,
            *([_READING[attribution.estimand == "Owen value"]] if faint.any() else []),
            *([] if half is None else half_width_notes(half, "groups and features", "Whiskers")),
            *fonts.notes,
        ]

        def layout(page: Page) -> None:
            _draw(page, attribution, part, [_line(page, groups, i, rows) for i in rows], bars, notes)

        return drawn(look, fonts, layout, signed=attribution.signed)


@dataclass(frozen=True)
class _Line:
    """A row of the outline.

    Attributes:
        text: name of the group.
        depth: level of indentation.
        parent: row of the group that contains it.
        tag: note on parts that are not shown.
    """

    text: str
    depth: int
    parent: int | None
    tag: str

    def beside(self, page: Page) -> float:
        """Width of indentation and note in inches."""
        return self.depth * INDENT + (page.width_of([self.tag], NOTE) + TAG_GAP if self.tag else 0.0)

    def width(self, page: Page) -> float:
        """Width in inches."""
        return self.beside(page) + page.width_of([self.text], parts.LABEL)

    def fitted(self, page: Page, room: float) -> _Line:
        """The line with its text shortened to fit into ``room`` inches."""
        return replace(self, text=page.fitted(self.text, room - self.beside(page), parts.LABEL))


def _line(page: Page, groups: Sequence[Group], i: int, rows: Sequence[int]) -> _Line:
    group, parent = groups[i], groups[i].parent
    # In a width that the user chose, short texts are cut to half of it.
    short = page.look.short and page.room is None
    columns = SHORT_COLUMNS if short else max(LEAST_COLUMNS, COLUMNS - 3 * group.depth)
    tag = group.tag(sum(groups[row].parent == i for row in rows))
    return _Line(
        text=page.drawable(group.label(columns)),
        depth=group.depth,
        parent=None if parent is None else rows.index(parent),
        tag=tag,
    )


def _draw(
    page: Page, attribution: Attribution, part: str, lines: Sequence[_Line], bars: Bars, notes: list[str]
) -> None:
    outline = max(line.width(page) for line in lines) + 0.1
    inner = bars.width(page, BARS)
    if page.room is not None:
        beside = bars.width(page, LEAST_BARS) + 2 * MARGIN
        page.need_width(beside + 0.1 + max(min(line.beside(page) + LEAST_TEXT, line.width(page)) for line in lines))
        outline = min(outline, page.room - beside, *([page.room / 2] if page.look.short else []))
        lines = [line.fitted(page, outline - 0.1) for line in lines]
        inner = page.room - 2 * MARGIN - outline
    width = outline + inner + 2 * MARGIN
    header, texts = header_of(attribution, page, width, part=part), parts.wrapped_notes(page, notes, width)
    rest = header.height + AXIS + parts.notes_height(texts)
    body = len(lines) * page.row_height(len(lines), ROW, LEAST_ROW, rest)
    page.resize(width, rest + body)
    _draw_outline(page, page.axes(MARGIN, header.height, outline, body), outline, lines)
    axes = page.axes(MARGIN + outline, header.height, inner, body)
    bars.draw(page, axes, inner)
    _draw_bands(page, axes, len(lines))
    axes.set_yticks([])
    parts.plain_axes(page, axes, f"score of the group or feature ({attribution.unit})")
    header.draw(page)
    parts.draw_notes(page, texts, header.height + body + AXIS)


def _draw_outline(page: Page, axes: Axes, width: float, lines: Sequence[_Line]) -> None:
    """Draw the texts and the lines from groups to their parts; one unit is an inch."""
    axes.set_xlim(0, width)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.axis("off")
    _draw_bands(page, axes, len(lines))
    ink = axes.spines["left"].get_edgecolor()
    for row, line in enumerate(lines):
        left = line.depth * INDENT
        if line.parent is not None:
            x = left - BRANCH
            style: dict[str, Any] = {"color": page.faded(ink, 0.45), "linewidth": 0.7}
            before = max(i for i in range(row) if i == line.parent or lines[i].parent == line.parent)
            start = before + 0.4 if before == line.parent else before
            axes.plot([x, x, left - 0.05], [start, row, row], **style)
        style = {"va": "center_baseline", "ha": "left"}
        axes.text(left, row, line.text, **(page.style(parts.LABEL) | style))
        if line.tag:
            x = left + page.width_of([line.text], parts.LABEL) + TAG_GAP
            grey = page.faded(rcParams["text.color"], 0.6)
            axes.text(x, row, line.tag, color=grey, **(page.style(NOTE) | style))


def _draw_bands(page: Page, axes: Axes, rows: int) -> None:
    """Shade every other row, which guides the eye from a text to its bar."""
    band = page.faded(axes.spines["left"].get_edgecolor(), 0.04)
    for row in range(0, rows, 2):
        axes.axhspan(row - 0.5, row + 0.5, color=band, linewidth=0, zorder=0)

"""Coloured cells in rows and columns, with bars on the left and a colour scale below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page
from apportion_plugins.visualizers.drawing import Axes, Colormap, ListedColormap, Normalize, Rectangle, ScalarMappable
from apportion_plugins.visualizers.header import Header
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import Ramp, colour_limit, hex_of, text_on
from apportion_plugins.visualizers.strips import NUMBER, Strip, draw_strips, strips_height

__all__ = ["AXIS", "SCALE", "Cells", "Grid", "colours", "draw_cells", "draw_grid", "draw_scale", "label_columns"]

ROW, LEAST_ROW = 0.27, 0.18
AXIS = 0.52
BARS, LEAST_BARS, NARROW_BARS = 1.4, 0.6, 0.3
LEAST_CELL = 0.18
SPACE = 0.35
WIDE = 0.95
MOST_PRECISE = 12
LEAST_WIDTH = 6.4
SCALE = 2.2
STEPS = 257
HATCH = 0.25
"""Strength of the lines of hatched cells."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Coloured cells with labels above the columns.

    Attributes:
        page: the figure.
        cells: values; NaN where unknown.
        columns: labels of the columns.
        numbered: write values in the cells.
        blank: cells that have no meaning and stay empty.
        hatched: blank cells are hatched, to be told from values of 0.
        strongest: magnitude that gets the strongest colour; ``None`` for the largest in the cells.
    """

    page: Page
    cells: Float64[np.ndarray, "F T"]
    columns: list[str]
    numbered: bool
    blank: Bool[np.ndarray, "F T"] | None = None
    hatched: bool = False
    strongest: float | None = None

    @property
    def limit(self) -> float:
        """Magnitude that gets the strongest colour."""
        return self.strongest or colour_limit(self.cells)

    @property
    def texts(self) -> list[list[str]]:
        """Numbers in the cells."""
        numbers = Numbers(
            self.cells.ravel(), digits=3 if len(self.columns) <= MOST_PRECISE else 2, signed=self.page.signed
        )
        texts = [[numbers.signed(value) for value in row] for row in self.cells]
        if self.blank is None:
            return texts
        rows = zip(texts, self.blank, strict=True)
        return [["" if off else text for text, off in zip(*row, strict=True)] for row in rows]


@dataclass(frozen=True, kw_only=True)
class Grid(Cells):
    """Contents and dimensions of a grid.

    Attributes:
        rows: labels of the rows.
        bars: one bar per row, on its left.
        insists: numbers must not be dropped, even if the user chose a small width.
        bars_label: label below the bars.
        scale_label: label below the colour scale.
        side: height of a row and minimum width of a column, in inches.
        scale_label_short: label below the colour scale of narrow figures; empty for the same.
        rule: row above which a line is drawn, in bars and cells; ``None`` for no line.
        strips: rows of other numbers between the labels of the columns and the cells.
    """

    rows: list[str]
    bars: Bars
    insists: bool
    bars_label: str
    scale_label: str
    side: float = ROW
    scale_label_short: str = ""
    rule: int | None = None
    strips: Sequence[Strip] = ()

    @property
    def least_cell(self) -> float:
        """Least width of a cell: enough for its number."""
        rows = (*self.texts, *(strip.texts for strip in self.strips))
        widest = sorted({text for row in rows for text in row}, key=len)[-3:]
        return self.page.width_of(widest, NUMBER) + 0.09 if self.numbered else LEAST_CELL

    def natural_cell(self, room: float) -> float:
        """Width of a cell: enough for its number, and more if the figure has ``room`` inches to fill."""
        least = self.least_cell if self.numbered else 0.0
        return max(least, self.side, min(WIDE if self.blank is None or self.hatched else 0.0, room / len(self.columns)))


@dataclass(frozen=True)
class _Columns:
    """Widths in inches, from left to right.

    Attributes:
        labels: labels of the rows, shortened to fit.
        left: left edge of the bars.
        bars: width of the axes of the bars.
        cell: width of a cell.
        slanted: labels of the columns are slanted.
        longest: width of the longest of them.
        width: width of the figure.
    """

    labels: list[str]
    left: float
    bars: float
    cell: float
    slanted: bool
    longest: float
    width: float

    @property
    def heat(self) -> float:
        """Left edge of the cells."""
        return self.left + self.bars + SPACE

    @property
    def rise(self) -> float:
        """Height of the labels of the columns."""
        return 0.75 * self.longest + 0.2 if self.slanted else 0.2


def draw_grid(grid: Grid, header: Callable[[float], Header], notes: list[str]) -> None:
    """Lay out and draw a grid.

    Args:
        grid: the cells and the bars next to them.
        header: gives the header for the width of the figure.
        notes: notes at the bottom.
    """
    page = grid.page
    grid, at = _fitted(grid) if page.room is not None else (grid, _natural(grid))
    above, lines = header(at.width), parts.wrapped_notes(page, notes, at.width)
    labels = above.height + at.rise
    top = labels + strips_height(grid.strips)
    rest, n = top + AXIS + parts.notes_height(lines), len(grid.rows)
    body = n * page.row_height(n, grid.side, LEAST_ROW, rest)
    page.resize(at.width, rest + body)
    bar_axes = page.axes(at.left, top, at.bars, body)
    grid.bars.draw(page, bar_axes, at.bars)
    parts.label_rows(page, bar_axes, at.labels)
    parts.plain_axes(page, bar_axes, grid.bars_label)
    across = at.cell * len(grid.columns)
    strips = draw_strips(page, grid.strips, at.heat, labels, across, numbered=grid.numbered)
    cells = page.axes(at.heat, top, across, body)
    draw_cells(grid, cells)
    label_columns(grid, [*strips, cells], at.slanted)
    for axes in (bar_axes, cells):
        parts.draw_rule(page, axes, grid.rule)
    scale_axes = page.axes(at.heat, top + body + 0.09, min(SCALE, at.width - at.heat - MARGIN - 0.15), 0.1)
    draw_scale(page, scale_axes, grid.limit, _scale_label(page, grid))
    above.draw(page)
    parts.draw_notes(page, lines, top + body + AXIS)


def _natural(grid: Grid) -> _Columns:
    """The widths that the content needs."""
    page = grid.page
    left = MARGIN + page.width_of(grid.rows, parts.LABEL) + 0.1
    bars = grid.bars.width(page, BARS)
    heat = left + bars + SPACE
    cell = grid.natural_cell(LEAST_WIDTH - heat - MARGIN)
    longest = page.width_of(grid.columns, parts.LABEL)
    slanted = longest > cell - 0.06
    beyond = _overhang(longest, cell) if slanted else 0.0
    right = max(cell * len(grid.columns) + beyond, SCALE + 0.15)
    return _Columns(grid.rows, left, bars, cell, slanted, longest, max(LEAST_WIDTH, heat + right + MARGIN))


def _fitted(grid: Grid) -> tuple[Grid, _Columns]:
    """The grid and its widths in a figure whose width the user chose; numbers without room are left out."""
    page, n = grid.page, len(grid.columns)
    longest = page.width_of(grid.columns, parts.LABEL)
    bars = grid.bars.width(page, LEAST_BARS)
    narrow = grid.bars.width(page, NARROW_BARS)
    least_labels = min(page.width_of(grid.rows, parts.LABEL), parts.LEAST_LABELS)
    around = 2 * MARGIN + 0.1 + SPACE

    def right(cell: float) -> float:
        beyond = _overhang(longest, cell) if longest > cell - 0.06 else 0.0
        return max(n * cell + beyond, _least_scale(page, grid) + 0.15)

    assert page.room is not None
    beside = around + least_labels
    if page.room < beside + bars + right(grid.least_cell):
        # Short bars show more than cells without numbers, and those more than smaller print.
        bars = narrow
        if grid.numbered and not grid.insists and page.room < beside + bars + right(grid.least_cell):
            grid = replace(grid, numbered=False)
    least = grid.least_cell
    page.need_width(around + bars + least_labels + right(least))
    labels, widest = parts.fitted_labels(page, grid.rows, around + bars + right(least))
    # What is left goes to the bars, up to their usual width, and to the cells.
    spare = page.room - around - bars - widest - right(least)
    wider = min(grid.bars.width(page, BARS) - bars, spare / 3)
    cell = _widest_cell(right(least) + spare - wider, n, longest)
    left = MARGIN + widest + 0.1
    return grid, _Columns(labels, left, bars + wider, cell, longest > cell - 0.06, longest, page.room)


def _widest_cell(room: float, n: int, longest: float) -> float:
    """Width of n cells that, with their labels, take ``room`` inches."""
    flat = room / n
    return flat if longest <= flat - 0.06 else min(flat, (room - 0.75 * longest) / (n - 0.5))


def _least_scale(page: Page, grid: Grid) -> float:
    """Least width of the colour scale: that of the label below it."""
    return min(SCALE, page.width_of([_scale_label(page, grid)], parts.LABEL))


def _scale_label(page: Page, grid: Grid) -> str:
    """Label below the colour scale; without what the header says too if the user chose a small width."""
    long = page.room is None or page.room >= LEAST_WIDTH
    return grid.scale_label if long else grid.scale_label_short or grid.scale_label


def _overhang(longest: float, cell: float) -> float:
    """Width of slanted labels beyond the last column."""
    return max(0.0, 0.75 * longest - cell / 2)


def _least(page: Page) -> float:
    """The lowest strength: 0 for magnitudes."""
    return -1.0 if page.signed else 0.0


def colours(ramp: Ramp, least: float, most: float = 1.0) -> Colormap:
    """Colours for strengths from ``least`` to ``most``; grey for NaN."""
    steps = [hex_of(ramp.colour(float(s))) for s in np.linspace(least, most, STEPS)]
    return ListedColormap(steps).with_extremes(bad=hex_of(ramp.colour(float("nan"))))


def label_columns(grid: Cells, axes: Sequence[Axes], slanted: bool) -> None:
    """Label the columns above the first of the axes that share them."""
    slant: dict[str, Any] = (
        {"rotation": 48.0, "ha": "left", "va": "baseline", "rotation_mode": "anchor"} if slanted else {}
    )
    for other in axes[1:]:
        other.set_xticks([])
    axes[0].set_xticks(range(len(grid.columns)), grid.columns, **grid.page.style(parts.LABEL), **slant)
    axes[0].tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes[0].tick_params(axis="x", pad=grid.page.points(3.0))


def draw_cells(grid: Cells, axes: Axes) -> None:
    """Draw cells, with their numbers, in axes."""
    n_rows, n_columns = grid.cells.shape
    corners = np.arange(n_columns + 1) - 0.5, np.arange(n_rows + 1) - 0.5
    # Edges in the background colour separate the cells.
    style: dict[str, Any] = {
        "norm": Normalize(_least(grid.page) * grid.limit, grid.limit),
        "edgecolors": axes.get_facecolor(),
        "linewidth": 0.8,
    }
    blank = np.zeros(grid.cells.shape, bool) if grid.blank is None else grid.blank
    shown = np.ma.masked_invalid(np.where(blank, 0.0, grid.cells))
    axes.pcolormesh(*corners, shown, cmap=colours(grid.page.ramp, _least(grid.page)), **style)
    page_colour: dict[str, Any] = {"facecolor": axes.get_facecolor(), "edgecolor": axes.get_facecolor()}
    if grid.hatched:
        lines = grid.page.faded(axes.spines["left"].get_edgecolor(), HATCH)
        page_colour |= {"edgecolor": lines, "hatch": "////", "linewidth": 0.0}
    for row, column in np.argwhere(blank):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **page_colour))
    axes.set_ylim(n_rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if grid.numbered:
        _draw_numbers(grid, axes)


def _draw_numbers(grid: Cells, axes: Axes) -> None:
    style = grid.page.style(NUMBER) | {"ha": "center", "va": "center_baseline"}
    for row, texts in enumerate(grid.texts):
        for column, text in enumerate(texts):
            ink = hex_of(text_on(grid.page.ramp.colour(float(grid.cells[row, column]) / grid.limit)))
            axes.text(column, row, text, color=ink, **style)


def draw_scale(
    page: Page,
    axes: Axes,
    limit: float,
    label: str,
    *,
    ends: tuple[float, float] | None = None,
    palette: Colormap | None = None,
) -> None:
    """Draw the colour scale in axes of ``SCALE`` inches, whatever the width of the grid.

    Args:
        page: the figure.
        axes: the axes.
        limit: magnitude with the strongest colour.
        label: text below it.
        ends: strengths at its ends, if it shows one sign alone.
        palette: its colours, if they are others than those of values.
    """
    least, most = ends or (_least(page), 1.0)
    source = ScalarMappable(Normalize(least * limit, most * limit), palette or colours(page.ramp, least, most))
    bar = page.figure.colorbar(source, cax=axes, orientation="horizontal")
    numbers = Numbers([limit], digits=2, signed=page.signed)
    ticks = [part * limit for part in (least, (least + most) / 2, most)]
    bar.set_ticks(ticks, labels=[numbers.signed(tick) for tick in ticks], **page.style(NOTE))
    bar.ax.tick_params(length=page.points(2.0), pad=page.points(3.5))
    bar.outline.set_visible(False)
    bar.set_label(label, labelpad=page.points(4.0), **page.style(parts.LABEL))

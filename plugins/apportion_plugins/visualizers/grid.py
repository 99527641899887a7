"""Coloured cells in rows and columns, with bars on the left and a colour scale below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page
from apportion_plugins.visualizers.drawing import Axes, Colormap, ListedColormap, Normalize, Rectangle, ScalarMappable
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import Ramp, colour_limit, hex_of, text_on

__all__ = ["AXIS", "SCALE", "Grid", "draw_grid", "draw_scale"]

ROW = 0.27
AXIS = 0.52
BARS = 1.4
SPACE = 0.35
WIDE = 0.95
NUMBER = 7.0
MOST_PRECISE = 12
LEAST_WIDTH = 6.4
SCALE = 2.2
STEPS = 257


@dataclass(frozen=True)
class Grid:
    """Contents and dimensions of a grid.

    Attributes:
        page: the figure.
        cells: values; NaN where unknown.
        rows: labels of the rows.
        columns: labels of the columns.
        bars: one bar per row, on its left.
        numbered: write values in the cells.
        bars_label: label below the bars.
        scale_label: label below the colour scale.
        side: height of a row and minimum width of a column, in inches.
        blank: cells that have no meaning and stay empty.
    """

    page: Page
    cells: Float64[np.ndarray, "F T"]
    rows: list[str]
    columns: list[str]
    bars: Bars
    numbered: bool
    bars_label: str
    scale_label: str
    side: float = ROW
    blank: Bool[np.ndarray, "F T"] | None = None

    @property
    def limit(self) -> float:
        """Magnitude that gets the strongest colour."""
        return colour_limit(self.cells)

    @property
    def texts(self) -> list[list[str]]:
        """Numbers in the cells."""
        numbers = Numbers(self.cells.ravel(), digits=3 if len(self.columns) <= MOST_PRECISE else 2)
        texts = [[numbers.signed(value) for value in row] for row in self.cells]
        if self.blank is None:
            return texts
        rows = zip(texts, self.blank, strict=True)
        return [["" if off else text for text, off in zip(*row, strict=True)] for row in rows]

    def cell_width(self, room: float) -> float:
        """Width of a cell: enough for its number, and more if the figure has ``room`` inches to fill."""
        widest = sorted({text for row in self.texts for text in row}, key=len)[-3:]
        least = self.page.width_of(widest, NUMBER) + 0.09 if self.numbered else 0.0
        return max(least, self.side, min(WIDE if self.blank is None else 0.0, room / len(self.columns)))


def draw_grid(grid: Grid, header: Callable[[float], list[str]], notes: list[str]) -> None:
    """Lay out and draw a grid.

    Args:
        grid: the cells and the bars next to them.
        header: gives the header lines for the width of the figure.
        notes: notes at the bottom.
    """
    page = grid.page
    left = MARGIN + page.width_of(grid.rows, parts.LABEL) + 0.1
    bar_width = grid.bars.width(page, BARS)
    heat_left = left + bar_width + SPACE
    cell = grid.cell_width(LEAST_WIDTH - heat_left - MARGIN)
    heat_width = cell * len(grid.columns)
    longest = page.width_of(grid.columns, parts.LABEL)
    flat = longest <= cell - 0.06
    rise = 0.2 if flat else 0.75 * longest + 0.2
    overhang = 0.0 if flat else 0.75 * longest - cell / 2
    width = max(LEAST_WIDTH, heat_left + max(heat_width + max(0.0, overhang), SCALE + 0.15) + MARGIN)
    title = header(width)
    notes = [line for note in notes for line in page.wrapped(note, width - 2 * MARGIN, NOTE)]
    top, body = parts.header_height(title) + rise, grid.side * len(grid.rows)
    page.resize(width, top + body + AXIS + parts.notes_height(notes))
    bar_axes = page.axes(left, top, bar_width, body)
    grid.bars.draw(page, bar_axes, bar_width)
    parts.label_rows(page, bar_axes, grid.rows)
    parts.plain_axes(page, bar_axes, grid.bars_label)
    _draw_cells(grid, page.axes(heat_left, top, heat_width, body), flat)
    scale_axes = page.axes(heat_left, top + body + 0.09, SCALE, 0.1)
    draw_scale(page, scale_axes, grid.limit, grid.scale_label)
    parts.draw_header(page, title)
    parts.draw_notes(page, notes, top + body + AXIS)


def _colours(ramp: Ramp) -> Colormap:
    steps = [hex_of(ramp.colour(float(s))) for s in np.linspace(-1, 1, STEPS)]
    return ListedColormap(steps).with_extremes(bad=hex_of(ramp.colour(float("nan"))))


def _draw_cells(grid: Grid, axes: Axes, flat: bool) -> None:
    n_rows, n_columns = grid.cells.shape
    corners = np.arange(n_columns + 1) - 0.5, np.arange(n_rows + 1) - 0.5
    # Edges in the background colour separate the cells.
    style: dict[str, Any] = {
        "norm": Normalize(-grid.limit, grid.limit),
        "edgecolors": axes.get_facecolor(),
        "linewidth": 0.8,
    }
    blank = np.zeros(grid.cells.shape, bool) if grid.blank is None else grid.blank
    shown = np.ma.masked_invalid(np.where(blank, 0.0, grid.cells))
    axes.pcolormesh(*corners, shown, cmap=_colours(grid.page.ramp), **style)
    page_colour: dict[str, Any] = {"facecolor": axes.get_facecolor(), "edgecolor": axes.get_facecolor()}
    for row, column in np.argwhere(blank):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **page_colour))
    axes.set_ylim(n_rows - 0.5, -0.5)
    slant: dict[str, Any] = (
        {} if flat else {"rotation": 48.0, "ha": "left", "va": "baseline", "rotation_mode": "anchor"}
    )
    axes.set_xticks(range(n_columns), grid.columns, **grid.page.style(parts.LABEL), **slant)
    axes.set_yticks([])
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, length=0, pad=3)
    axes.spines[:].set_visible(False)
    if grid.numbered:
        _draw_numbers(grid, axes)


def _draw_numbers(grid: Grid, axes: Axes) -> None:
    style = grid.page.style(NUMBER) | {"ha": "center", "va": "center_baseline"}
    for row, texts in enumerate(grid.texts):
        for column, text in enumerate(texts):
            ink = hex_of(text_on(grid.page.ramp.colour(float(grid.cells[row, column]) / grid.limit)))
            axes.text(column, row, text, color=ink, **style)


def draw_scale(page: Page, axes: Axes, limit: float, label: str) -> None:
    """Draw the colour scale in axes of ``SCALE`` inches, whatever the width of the grid."""
    source = ScalarMappable(Normalize(-limit, limit), _colours(page.ramp))
    bar = page.figure.colorbar(source, cax=axes, orientation="horizontal")
    numbers = Numbers([limit], digits=2)
    ticks = [-limit, 0.0, limit]
    bar.set_ticks(ticks, labels=[numbers.signed(tick) for tick in ticks], **page.style(NOTE))
    bar.ax.tick_params(length=2)
    bar.outline.set_visible(False)
    bar.set_label(label, **page.style(parts.LABEL))

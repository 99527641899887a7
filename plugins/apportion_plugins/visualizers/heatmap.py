"""A heat map: features × target tokens, with bars for the whole target beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize

from apportion.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page, PlotFigure
from apportion_plugins.visualizers.facts import error_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.labels import ellipsis, token_labels
from apportion_plugins.visualizers.numbers import Numbers, half_widths
from apportion_plugins.visualizers.palette import Ramp, colour_limit, hex_of, text_on
from apportion_plugins.visualizers.selection import check_limit, largest, left_out

__all__ = ["Heatmap"]

ROW = 0.27
AXIS = 0.52
BARS = 1.4
SPACE = 0.35
NARROW, WIDE = 0.27, 0.95
NUMBER = 7.0
TOKEN_COLUMNS = 18
MOST_NUMBERED, MOST_PRECISE = 40, 12
LEAST_WIDTH = 6.4
SCALE = 2.2
STEPS = 257


class Heatmap:
    """One cell for each feature and target token, bars for the whole target."""

    def render(
        self,
        attribution: Attribution,
        *,
        max_features: int | None = 60,
        max_tokens: int | None = 60,
        numbers: bool | None = None,
    ) -> PlotFigure:
        """Draw the attribution of each target token, and of the whole target, to each feature.

        Args:
            attribution: the result.
            max_features: show this many features at most, those with the largest magnitude, and say in the
                figure how many are left out; ``None`` for all.
            max_tokens: the same for target tokens, by the sum of their magnitudes.
            numbers: whether values stand in the cells; ``None`` for: while there are few enough columns.

        Returns:
            A matplotlib figure that notebooks display; ``figure.savefig("dave.png")`` writes it.

        Raises:
            InputError: a limit is no count, or the figure would be too large.
        """
        cells, tokens = _cells(attribution)
        check_limit("max_features", len(cells) if max_features is None else max_features, parts.MOST_ROWS)
        check_limit("max_tokens", len(tokens) if max_tokens is None else max_tokens, parts.MOST_ROWS)
        values, half = np.asarray(attribution.values), half_widths(attribution)
        weight = np.nansum(np.abs(cells), axis=0)
        rows, columns = largest(values, max_features), largest(weight, max_tokens)
        fonts = lettering(parts.figure_texts(attribution))
        page = Page(fonts)
        notes = [
            *left_out(values, rows, "features", "max_features"),
            *left_out(weight, columns, "target tokens", "max_tokens", "Σ|attribution|"),
            *error_notes(attribution, "Whiskers"),
            *fonts.notes,
        ]
        grid = _Grid(
            page=page,
            cells=cells[np.ix_(rows, columns)],
            rows=parts.row_labels(attribution, rows, page),
            columns=[page.drawable(ellipsis(tokens[i], TOKEN_COLUMNS)) for i in columns],
            bars=Bars(values[rows], None if half is None else half[rows], Numbers(values[rows])),
            numbered=len(columns) <= MOST_NUMBERED if numbers is None else numbers,
        )
        _draw(grid, attribution, notes)
        return page.figure


@dataclass(frozen=True)
class _Grid:
    """What is drawn, and the inches it takes."""

    page: Page
    cells: Float64[np.ndarray, "F T"]
    rows: list[str]
    columns: list[str]
    bars: Bars
    numbered: bool

    @property
    def limit(self) -> float:
        """The magnitude that gets the strongest colour."""
        return colour_limit(self.cells)

    @property
    def texts(self) -> list[list[str]]:
        """The numbers in the cells."""
        numbers = Numbers(self.cells.ravel(), digits=3 if len(self.columns) <= MOST_PRECISE else 2)
        return [[numbers.signed(value) for value in row] for row in self.cells]

    def cell_width(self, room: float) -> float:
        """Wide enough for its number; wider where the figure has ``room`` inches to fill."""
        widest = sorted({text for row in self.texts for text in row}, key=len)[-3:]
        least = self.page.width_of(widest, NUMBER) + 0.09 if self.numbered else NARROW
        return max(least, NARROW, min(WIDE, room / len(self.columns)))


def _cells(attribution: Attribution) -> tuple[Float64[np.ndarray, "F T"], list[str]]:
    """Features × tokens, and the tokens' labels; the whole target as one column where there are no tokens."""
    if not attribution.target_tokens:
        return np.asarray(attribution.values)[:, None], ["whole target"]
    return np.asarray(attribution.token_values).T, token_labels(attribution.target_tokens)


def _draw(grid: _Grid, attribution: Attribution, notes: list[str]) -> None:
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
    title = parts.header(attribution, page, width)
    notes = [line for note in notes for line in page.wrapped(note, width - 2 * MARGIN, NOTE)]
    top, body = parts.header_height(title) + rise, ROW * len(grid.rows)
    page.resize(width, top + body + AXIS + parts.notes_height(notes))
    bar_axes = page.axes(left, top, bar_width, body)
    grid.bars.draw(page, bar_axes, bar_width)
    parts.label_rows(page, bar_axes, grid.rows)
    parts.plain_axes(page, bar_axes, f"whole target ({attribution.unit})")
    _draw_cells(grid, page.axes(heat_left, top, heat_width, body), flat)
    scale_axes = page.axes(heat_left, top + body + 0.09, SCALE, 0.1)
    _draw_scale(grid, scale_axes, attribution.unit)
    parts.draw_header(page, title)
    parts.draw_notes(page, notes, top + body + AXIS)


def _colours(ramp: Ramp) -> Colormap:
    steps = [hex_of(ramp.colour(float(s))) for s in np.linspace(-1, 1, STEPS)]
    return ListedColormap(steps).with_extremes(bad=hex_of(ramp.colour(float("nan"))))


def _draw_cells(grid: _Grid, axes: Axes, flat: bool) -> None:
    n_rows, n_columns = grid.cells.shape
    corners = np.arange(n_columns + 1) - 0.5, np.arange(n_rows + 1) - 0.5
    # Edges in the page's colour set the cells apart.
    style: dict[str, Any] = {
        "norm": Normalize(-grid.limit, grid.limit),
        "edgecolors": axes.get_facecolor(),
        "linewidth": 0.8,
    }
    axes.pcolormesh(*corners, np.ma.masked_invalid(grid.cells), cmap=_colours(grid.page.ramp), **style)
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


def _draw_numbers(grid: _Grid, axes: Axes) -> None:
    style = grid.page.style(NUMBER) | {"ha": "center", "va": "center_baseline"}
    for row, texts in enumerate(grid.texts):
        for column, text in enumerate(texts):
            ink = hex_of(text_on(grid.page.ramp.colour(float(grid.cells[row, column]) / grid.limit)))
            axes.text(column, row, text, color=ink, **style)


def _draw_scale(grid: _Grid, axes: Axes, unit: str) -> None:
    """The colour bar, below the cells: its length does not depend on how many there are."""
    page, limit = grid.page, grid.limit
    source = ScalarMappable(Normalize(-limit, limit), _colours(grid.page.ramp))
    bar = page.figure.colorbar(source, cax=axes, orientation="horizontal")
    numbers = Numbers([limit], digits=2)
    ticks = [-limit, 0.0, limit]
    bar.set_ticks(ticks, labels=[numbers.signed(tick) for tick in ticks], **page.style(NOTE))
    bar.ax.tick_params(length=2)
    bar.outline.set_visible(False)
    bar.set_label(f"each target token ({unit})", **page.style(parts.LABEL))

"""Heat maps of the modules of a model, layers × features, one beside the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion.errors import InputError, ResultError, shown
from apportion.results.attribution import Attribution
from apportion.results.modules import module_values
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page, drawn
from apportion_plugins.visualizers.facts import quantity_of
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.grid import AXIS, SCALE, Cells, draw_cells, draw_scale, label_columns
from apportion_plugins.visualizers.header import header_of
from apportion_plugins.visualizers.labels import ellipsis, short_label
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.module_panels import Panel, has_modules, panels_of
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import colour_limit
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import check_limit, checked_token, largest, left_out, part_of_target

__all__ = ["Layers"]

MOST = 200
"""Maximum number of features; with more, a figure is too large to be saved as an image."""
COLUMN = 18
"""Maximum number of characters of a feature's label."""
ROW, LEAST_ROW = 0.14, 0.1
CELL, LEAST_CELL, WIDE = 0.19, 0.17, 0.9
LEAST_PANEL = 2.6
GAP, NAME = 0.3, 0.3
ROWS = "layer"
"""Head of the numbers of rows."""
LEAST_WIDTH = 6.4
USUAL = 10.5
"""Width in inches that panels fill before they go on below."""


class Layers:
    """One heat map for each module that the layers of a model have: a row per layer, a column per feature."""

    def render(
        self,
        attribution: Attribution,
        *,
        token: int | None = None,
        scale: str = "own",
        max_features: int | None = 40,
        title: str | None = AUTO,
        labels: str = "full",
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw the values of modules in a result of a method at layers, such as ``layer_integrated_gradients``.

        Args:
            attribution: the result.
            token: position of a target token to show; ``None`` for the whole target.
            scale: ``"own"``: in each heat map, the strongest colour is for its largest magnitude, which is written
                above it. ``"shared"``: the same colours in all, so that they can be compared.
            max_features: maximum number of features to show, those with the largest values; a note says how many are
                omitted. ``None`` for all.
            title: text above the figure; ``"auto"`` for estimand, target and model, ``None`` for none.
            labels: accepted like in other figures; features have short labels here.
            size: width and height in inches, such as ``(6.5, 4)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("layers.png")`` saves it.

        Raises:
            ResultError: the result has no values of modules.
            InputError: there is no such token, an option is out of range, the figure would be too large, or its
                content does not fit ``size``.
        """
        look = Look(title, labels, size, dpi)
        if scale not in ("shared", "own"):
            raise InputError(f"scale={shown(scale)} must be 'shared' or 'own'.")
        if not has_modules(attribution):
            raise ResultError(
                f"This result of method {attribution.provenance.method!r} has no values of modules. Run attribute "
                'again with a method at layers, such as method="layer_integrated_gradients".'
            )
        position = checked_token(attribution, token)
        if position is not None and "module_token_values" not in attribution.extras:
            raise ResultError(
                "This result has no values of modules for target tokens; only the whole target was scored."
            )
        values = module_values(attribution.extras, position)
        check_limit("max_features", values.shape[1] if max_features is None else max_features, MOST)
        weight = np.nansum(np.abs(values), axis=0)
        columns = largest(weight, max_features)
        part = part_of_target(attribution, token)
        fonts = lettering([*parts.figure_texts(attribution, title), *attribution.extras["modules"], part])
        hidden = left_out(weight, columns, "features", "max_features", "Σ|attribution|")
        notes = [*hidden, *fonts.notes]

        def layout(page: Page) -> None:
            names = [page.drawable(ellipsis(short_label(attribution.features[i]), COLUMN)) for i in columns]
            panels = panels_of(attribution.extras["modules"])
            own = scale == "own" and len(panels) > 1
            _Sheet(page, panels, values[:, columns], names, own).draw(attribution, part, notes)

        return drawn(look, fonts, layout, signed=attribution.signed)


class _Sheet:
    """Panels in rows, below a header and above a colour scale.

    Args:
        page: the figure.
        panels: the panels.
        values: values of all modules.
        columns: labels of the features.
        own: each panel has colours of its own.
    """

    def __init__(
        self, page: Page, panels: list[Panel], values: Float64[np.ndarray, "M F"], columns: list[str], own: bool
    ) -> None:
        self._page, self._values, self._columns, self._own = page, values, columns, own
        labels = [label for panel in panels for label in (*panel.labels, *([ROWS] if panel.numbered else []))]
        self._labels = page.width_of(labels, NOTE) + 0.1
        self._longest = page.width_of(columns, parts.LABEL)
        across, self._cell = self._arranged(len(panels))
        self._lines = [panels[start : start + across] for start in range(0, len(panels), across)]
        self._step = self._labels + self._cell * len(columns) + GAP
        self._slanted = self._longest > self._cell - 0.06
        named = own or any(panel.name for panel in panels)
        self._rise = (0.75 * self._longest + 0.2 if self._slanted else 0.2) + (NAME if named else 0.0)
        needed = 2 * MARGIN + across * self._step - GAP + self._beyond(self._cell)
        self._width = page.room or max(LEAST_WIDTH, needed)

    def draw(self, attribution: Attribution, part: str, notes: list[str]) -> None:
        """Draw everything."""
        page, unit = self._page, attribution.unit
        if self._own:
            notes = [f"The strongest colour of each heat map stands for the magnitude above it, in {unit}.", *notes]
        header = header_of(attribution, page, self._width, part=part)
        lines = parts.wrapped_notes(page, notes, self._width)
        counts = [max(len(panel.rows) for panel in line) for line in self._lines]
        below = 0.0 if self._own else AXIS + (GAP / 2 if lines else 0.0)
        fixed = header.height + len(counts) * (self._rise + GAP / 2) + below + parts.notes_height(lines)
        row = page.row_height(sum(counts), ROW, LEAST_ROW, fixed)
        page.resize(self._width, fixed + sum(counts) * row)
        top, limit = header.height, colour_limit(self._values)
        for line, count in zip(self._lines, counts, strict=True):
            for i, panel in enumerate(line):
                self._draw_panel(panel, MARGIN + i * self._step + self._labels, top + self._rise, row, limit)
            top += self._rise + count * row + GAP / 2
        if not self._own:
            scale = page.axes(MARGIN + self._labels, top, min(SCALE, self._width - 2 * MARGIN - self._labels), 0.1)
            draw_scale(page, scale, limit, quantity_of(attribution))
        header.draw(page)
        parts.draw_notes(page, lines, top + below - GAP / 2)

    def _draw_panel(self, panel: Panel, left: float, top: float, row: float, limit: float) -> None:
        page, cells = self._page, self._values[list(panel.rows)]
        axes = page.axes(left, top, self._cell * len(self._columns), row * len(panel.rows))
        strongest = colour_limit(cells) if self._own else limit
        made = Cells(page=page, cells=cells, columns=self._columns, numbered=False, strongest=strongest)
        draw_cells(made, axes)
        label_columns(made, [axes], self._slanted)
        axes.set_yticks(range(len(panel.rows)), panel.labels, **page.style(NOTE))
        axes.tick_params(axis="y", length=0, pad=page.points(3.0))
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        if panel.numbered:
            beside = (page.points(-3.0), page.points(4.0))
            axes.annotate(ROWS, (0, 1), beside, ha="right", **place, **page.style(NOTE))
        name = page.drawable(panel.name)
        if self._own:
            name = f"{name} ({Numbers([strongest], digits=2).plain(strongest)})".lstrip()
        above = (0.0, page.points(72 * (self._rise - NAME) + 4))
        axes.annotate(name, (0, 1), above, weight="bold", **place, **page.style(parts.LABEL))

    def _beyond(self, cell: float) -> float:
        """Width of slanted labels beyond the last column."""
        return max(0.0, 0.75 * self._longest - cell / 2) if self._longest > cell - 0.06 else 0.0

    def _arranged(self, count: int) -> tuple[int, float]:
        """Number of panels side by side, and width of a cell."""
        page, n = self._page, len(self._columns)
        least = CELL if page.room is None else LEAST_CELL
        room = (USUAL if page.room is None else page.room) - 2 * MARGIN
        page.need_width(2 * MARGIN + self._labels + n * least + self._beyond(least))
        fits = int((room + GAP - self._beyond(least)) // (self._labels + n * least + GAP))
        across = -(-count // -(-count // max(1, fits)))
        spare = ((room + GAP - self._beyond(least)) / across - self._labels - GAP) / n
        if page.room is None:
            spare = min(spare, max(CELL, min(WIDE, LEAST_PANEL / n)))
        return across, max(least, spare)

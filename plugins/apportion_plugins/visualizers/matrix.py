"""Heat map of interactions, features × features, with bars for first-order values."""

from __future__ import annotations

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import Page, PlotFigure
from apportion_plugins.visualizers.facts import error_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.grid import Grid, draw_grid
from apportion_plugins.visualizers.labels import short_label
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.pairs import interval_notes, pairs_of, reading
from apportion_plugins.visualizers.selection import check_limit, largest, left_out

__all__ = ["Matrix"]

MOST_NUMBERED = 16
NARROW, SIDE, WIDE = 0.27, 0.4, 0.55
FEW = 8
MOST = 200
"""Maximum number of features; with more, a figure is too large to be saved as an image."""


class Matrix:
    """One cell per pair of features, with bars for the first-order values."""

    def render(
        self,
        attribution: Attribution,
        *,
        token: int | None = None,
        max_features: int | None = 40,
        numbers: bool | None = None,
    ) -> PlotFigure:
        """Draw the interactions of a result of ``method="interactions"``.

        Args:
            attribution: the result.
            token: position of a target token to show; ``None`` for the whole target.
            max_features: maximum number of features to show, those with the largest interactions; a note says how
                many are omitted. ``None`` for all.
            numbers: write values in the cells; ``None`` to do so if there are few enough.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("matrix.png")`` saves it.

        Raises:
            ResultError: the result has no interactions.
            InputError: there is no such token, a limit is not a positive whole number, or the figure would be too
                large.
        """
        pairs = pairs_of(attribution, token)
        matrix, values, half = pairs.matrix, pairs.values, pairs.half_widths
        check_limit("max_features", len(values) if max_features is None else max_features, MOST)
        weight = np.nansum(np.abs(matrix), axis=0)
        rows = largest(weight, max_features)
        fonts = lettering([*parts.figure_texts(attribution), pairs.part])
        page = Page(fonts)
        labels = parts.row_labels(attribution, rows, page)
        numbered = len(rows) <= MOST_NUMBERED if numbers is None else numbers
        scope = "whole target" if token is None else f"token {token}"
        grid = Grid(
            page=page,
            cells=matrix[np.ix_(rows, rows)],
            rows=labels,
            columns=[page.drawable(short_label(attribution.features[i])) for i in rows],
            bars=Bars(values[rows], None if half is None else half[rows], Numbers(values[rows])),
            numbered=numbered,
            bars_label=f"{attribution.estimand} ({attribution.unit})",
            scale_label=f"interaction, {scope} ({attribution.unit})",
            side=(WIDE if len(rows) <= FEW else SIDE) if numbered else NARROW,
            blank=np.eye(len(rows), dtype=bool),
        )
        notes = [
            *left_out(weight, rows, "features", "max_features", "Σ|interaction|"),
            *interval_notes(pairs),
            *error_notes(attribution, "Whiskers"),
            *fonts.notes,
        ]
        about = {"title": pairs.index, "reading": reading(attribution), "part": pairs.part}
        draw_grid(grid, lambda width: parts.header(attribution, page, width, **about), notes)
        return page.figure

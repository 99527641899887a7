"""A heat map of interactions: features × features, with bars for first-order values beside it."""

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
"""Features that a figure can have before it is too large to be saved as a picture."""


class Matrix:
    """One cell for each pair of features, bars for the first-order values."""

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
            token: the position of a target token to show; ``None`` for the whole target.
            max_features: show this many features at most, those with the largest interactions, and say in the
                figure how many are left out; ``None`` for all.
            numbers: whether values stand in the cells; ``None`` for: while there are few enough.

        Returns:
            A matplotlib figure that notebooks display; ``figure.savefig("matrix.png")`` writes it.

        Raises:
            ResultError: the result has no interactions.
            InputError: no such token, a limit is no count, or the figure would be too large.
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

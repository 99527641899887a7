"""Heat map of interactions, features × features, with bars for first-order values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import Page, drawn
from apportion_plugins.visualizers.facts import error_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.grid import Grid, draw_grid
from apportion_plugins.visualizers.header import header_of
from apportion_plugins.visualizers.labels import short_label
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.numbers import DECIMALS, Numbers
from apportion_plugins.visualizers.pairs import Pairs, interval_notes, pairs_of, reading
from apportion_plugins.visualizers.plot_figure import PlotFigure
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
        title: str | None = AUTO,
        labels: str = "full",
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw the interactions of a result of ``method="interactions"``.

        Args:
            attribution: the result.
            token: position of a target token to show; ``None`` for the whole target.
            max_features: maximum number of features to show, those with the largest interactions; a note says how
                many are omitted. ``None`` for all.
            numbers: write values in the cells; ``None`` to do so if there are few enough.
            title: text above the figure; ``"auto"`` for estimand, target and model, ``None`` for none.
            labels: ``"full"`` for names and texts of the features, ``"short"`` for names alone.
            size: width and height in inches, such as ``(6.5, 4)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("matrix.png")`` saves it.

        Raises:
            ResultError: the result has no interactions.
            InputError: there is no such token, an option is out of range, the figure would be too large, or its
                content does not fit ``size``.
        """
        look = Look(title, labels, size, dpi)
        pairs = pairs_of(attribution, token)
        check_limit("max_features", len(pairs.values) if max_features is None else max_features, MOST)
        weight = np.nansum(np.abs(pairs.matrix), axis=0)
        rows = largest(weight, max_features)
        fonts = lettering([*parts.figure_texts(attribution, title), pairs.part])
        notes = [
            *left_out(weight, rows, "features", "max_features", "Σ|interaction|"),
            *interval_notes(pairs),
            *error_notes(attribution, "Whiskers"),
            *fonts.notes,
        ]
        scope = "whole target" if token is None else f"token {token}"
        about = {"title": pairs.index, "reading": reading(attribution), "part": pairs.part}

        def layout(page: Page) -> None:
            grid = _grid(page, attribution, pairs, rows, scope, numbers)
            draw_grid(grid, lambda width: header_of(attribution, page, width, **about), notes)

        return drawn(look, fonts, layout)


def _grid(
    page: Page, attribution: Attribution, pairs: Pairs, rows: list[int], scope: str, numbers: bool | None
) -> Grid:
    values, half = pairs.values[rows], pairs.half_widths
    numbered = len(rows) <= MOST_NUMBERED if numbers is None else numbers
    return Grid(
        page=page,
        cells=pairs.matrix[np.ix_(rows, rows)],
        rows=parts.row_labels(attribution, rows, page),
        columns=[page.drawable(short_label(attribution.features[i])) for i in rows],
        bars=Bars(values, None if half is None else half[rows], Numbers(values, decimals=DECIMALS)),
        numbered=numbered,
        insists=numbers is True,
        bars_label=f"{attribution.estimand} ({attribution.unit})",
        scale_label=f"interaction, {scope} ({attribution.unit})",
        scale_label_short=f"interaction ({attribution.unit})",
        side=(WIDE if len(rows) <= FEW else SIDE) if numbered else NARROW,
        blank=np.eye(len(rows), dtype=bool),
    )

"""Heat map of features × target tokens, with bars for the whole target."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import Page, PlotFigure
from apportion_plugins.visualizers.facts import error_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.grid import Grid, draw_grid
from apportion_plugins.visualizers.labels import ellipsis, token_labels
from apportion_plugins.visualizers.numbers import Numbers, half_widths
from apportion_plugins.visualizers.selection import check_limit, largest, left_out

__all__ = ["Heatmap"]

TOKEN_COLUMNS = 18
MOST_NUMBERED = 40


class Heatmap:
    """One cell per feature and target token, with bars for the whole target."""

    def render(
        self,
        attribution: Attribution,
        *,
        max_features: int | None = 60,
        max_tokens: int | None = 60,
        numbers: bool | None = None,
    ) -> PlotFigure:
        """Draw the attribution of each target token, and of the whole target.

        Args:
            attribution: the result.
            max_features: maximum number of features to show, by magnitude; a note says how many are omitted.
                ``None`` for all.
            max_tokens: the same for target tokens, by the sum of their magnitudes.
            numbers: write values in the cells; ``None`` to do so if there are few enough columns.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("dave.png")`` saves it.

        Raises:
            InputError: a limit is not a positive whole number, or the figure would be too large.
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
        grid = Grid(
            page=page,
            cells=cells[np.ix_(rows, columns)],
            rows=parts.row_labels(attribution, rows, page),
            columns=[page.drawable(ellipsis(tokens[i], TOKEN_COLUMNS)) for i in columns],
            bars=Bars(values[rows], None if half is None else half[rows], Numbers(values[rows])),
            numbered=len(columns) <= MOST_NUMBERED if numbers is None else numbers,
            bars_label=f"whole target ({attribution.unit})",
            scale_label=f"each target token ({attribution.unit})",
        )
        draw_grid(grid, lambda width: parts.header(attribution, page, width), notes)
        return page.figure


def _cells(attribution: Attribution) -> tuple[Float64[np.ndarray, "F T"], list[str]]:
    """Features × tokens, and labels of the tokens; a single column for the whole target if there are no tokens."""
    if not attribution.target_tokens:
        return np.asarray(attribution.values)[:, None], ["whole target"]
    return np.asarray(attribution.token_values).T, token_labels(attribution.target_tokens)

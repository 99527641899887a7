"""Heat map of features × target tokens, with bars for the whole target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bar import draw_bars
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import Page, drawn
from apportion_plugins.visualizers.facts import error_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.grid import Grid, draw_grid
from apportion_plugins.visualizers.header import header_of
from apportion_plugins.visualizers.labels import ellipsis, token_labels
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.numbers import DECIMALS, Numbers, half_widths
from apportion_plugins.visualizers.own_target import HATCHED, first_of_target
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import check_limit, largest, left_out, repeats_the_whole
from apportion_plugins.visualizers.steps import step_note, step_rows
from apportion_plugins.visualizers.strips import Strip

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
        title: str | None = AUTO,
        labels: str = "full",
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw the attribution of each target token, and of the whole target; of a single token, bars alone.

        Step scores stand below the labels of the target tokens, in shades of grey, each on a scale of its own.

        Args:
            attribution: the result.
            max_features: maximum number of features to show, by magnitude; a note says how many are omitted.
                ``None`` for all.
            max_tokens: the same for target tokens, by the sum of their magnitudes.
            numbers: write values in the cells; ``None`` to do so if there are few enough columns.
            title: text above the figure; ``"auto"`` for estimand, target and model, ``None`` for none.
            labels: ``"full"`` for names and texts of the features, ``"short"`` for names alone.
            size: width and height in inches, such as ``(6.5, 4)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("dave.png")`` saves it.

        Raises:
            InputError: an option is out of range, the figure would be too large, or its content does not fit ``size``.
        """
        look = Look(title, labels, size, dpi)
        values, cells = np.asarray(attribution.values), np.asarray(attribution.token_values).T
        tokens = token_labels(attribution.target_tokens)
        check_limit("max_features", len(values) if max_features is None else max_features, parts.MOST_ROWS)
        check_limit("max_tokens", len(tokens) or 1 if max_tokens is None else max_tokens, parts.MOST_ROWS)
        rows = largest(values, max_features)
        fonts = lettering(parts.figure_texts(attribution, title))
        hidden, about = left_out(values, rows, "features", "max_features"), error_notes(attribution, "Whiskers")
        if repeats_the_whole(attribution):
            notes = [*hidden, *about, *step_note(attribution), *fonts.notes]
            return drawn(look, fonts, lambda page: draw_bars(page, attribution, rows, notes), signed=attribution.signed)
        weight = np.nansum(np.abs(cells), axis=0)
        columns = largest(weight, max_tokens)
        hidden += left_out(weight, columns, "target tokens", "max_tokens", "Σ|attribution|")

        def layout(page: Page) -> None:
            shown = [ellipsis(page.drawable(tokens[i]), TOKEN_COLUMNS) for i in columns]
            steps = [replace(row, values=row.values[columns]) for row in step_rows(attribution)]
            grid = _grid(page, attribution, rows, columns, shown, numbers)
            grid = replace(grid, strips=[Strip(page.drawable(row.title), row.values, row.texts) for row in steps])
            notes = [*hidden, *about, *([HATCHED] if grid.hatched else []), *fonts.notes]
            draw_grid(grid, lambda width: header_of(attribution, page, width), notes)

        return drawn(look, fonts, layout, signed=attribution.signed)


def _grid(
    page: Page,
    attribution: Attribution,
    rows: list[int],
    columns: list[int],
    names: list[str],
    numbers: bool | None,
) -> Grid:
    values, half = np.asarray(attribution.values)[rows], half_widths(attribution)
    written = Numbers(values, decimals=DECIMALS, signed=attribution.signed)
    place = np.ix_(columns, rows)
    blank = ~attribution.possible[place].T
    return Grid(
        page=page,
        cells=np.asarray(attribution.token_values)[place].T,
        rows=parts.row_labels(attribution, rows, page),
        columns=names,
        bars=Bars(values, None if half is None else half[rows], written),
        numbered=len(columns) <= MOST_NUMBERED if numbers is None else numbers,
        insists=numbers is True,
        bars_label=f"whole target ({attribution.unit})",
        scale_label=f"each target token ({attribution.unit})",
        scale_label_short=f"each token ({attribution.unit})",
        blank=blank if blank.any() else None,
        hatched=bool(blank.any()),
        rule=first_of_target(attribution, rows),
    )

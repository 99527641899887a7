"""Bar chart of the attribution of the whole target, one bar per feature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.ranking import TOP
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import MARGIN, Page, drawn
from apportion_plugins.visualizers.comparison_figure import comparison_figure
from apportion_plugins.visualizers.facts import error_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.header import header_of
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.numbers import DECIMALS, Numbers, half_widths
from apportion_plugins.visualizers.own_target import first_of_target
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import table_rows

__all__ = ["Bar", "draw_bars"]

ROW, LEAST_ROW = 0.27, 0.18
AXIS = 0.52
BARS, LEAST_BARS = 3.6, 0.9


class Bar:
    """Horizontal bars with 95 % intervals, in prompt order."""

    def render(
        self,
        attribution: Attribution,
        *,
        sort: bool = False,
        max_features: int | None = 60,
        title: str | None = AUTO,
        labels: str = "full",
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw the attribution of the whole target.

        Args:
            attribution: the result.
            sort: sort by magnitude, largest first, instead of prompt order.
            max_features: maximum number of features to show, by magnitude; a note says how many are omitted.
                ``None`` for all.
            title: text above the figure; ``"auto"`` for estimand, target and model, ``None`` for none.
            labels: ``"full"`` for names and texts of the features, ``"short"`` for names alone.
            size: width and height in inches, such as ``(3.3, 2.5)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("dave.png")`` saves it.

        Raises:
            InputError: an option is out of range, the figure would be too tall, or its content does not fit ``size``.
        """
        look = Look(title, labels, size, dpi)
        rows, hidden = table_rows(np.asarray(attribution.values), max_features, sort=sort, most=parts.MOST_ROWS)
        fonts = lettering(parts.figure_texts(attribution, title))
        notes = [*hidden, *error_notes(attribution, "Whiskers"), *fonts.notes]
        return drawn(look, fonts, lambda page: draw_bars(page, attribution, rows, notes), signed=attribution.signed)

    def render_comparison(
        self,
        comparison: ResultComparison,
        *,
        scale: str = "own",
        k: int = TOP,
        max_features: int | None = 40,
        title: str | None = AUTO,
        labels: str = "full",
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw results side by side: a column of bars for each, and below them the agreement of all pairs.

        Args:
            comparison: results of the same target.
            scale: ``"own"`` divides each column by its own largest magnitude, ``"unit"`` the columns of one unit by
                the largest of all of them; no scale is shared between units.
            k: number of features of largest magnitude whose overlap is shown.
            max_features: maximum number of features to show, by magnitude relative to the largest of a result; a note
                says how many are omitted. ``None`` for all.
            title: text above the figure; ``"auto"`` for target and model, ``None`` for none.
            labels: ``"full"`` for names and texts of the features, ``"short"`` for names alone.
            size: width and height in inches, such as ``(6.5, 4)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("methods.png")`` saves it.

        Raises:
            InputError: an option is out of range, or the content does not fit ``size``.
        """
        look = Look(title, labels, size, dpi)
        return comparison_figure(comparison, look, scale=scale, k=k, max_features=max_features)


def draw_bars(page: Page, attribution: Attribution, rows: Sequence[int], notes: Sequence[str]) -> None:
    """Lay out and draw the chart.

    Args:
        page: the figure.
        attribution: the result.
        rows: indices of the features to show, from top to bottom.
        notes: notes at the bottom.
    """
    values, half = np.asarray(attribution.values), half_widths(attribution)
    chosen = list(rows)
    numbers = Numbers(values[chosen], decimals=DECIMALS, signed=attribution.signed)
    bars = Bars(values[chosen], None if half is None else half[chosen], numbers)
    beside = 2 * MARGIN + 0.1 + bars.width(page, LEAST_BARS)
    labels, widest = parts.fitted_labels(page, parts.row_labels(attribution, rows, page), beside)
    left = MARGIN + widest + 0.1
    inner = bars.width(page, BARS) if page.room is None else page.room - left - MARGIN
    width = left + inner + MARGIN
    header, lines = header_of(attribution, page, width), parts.wrapped_notes(page, notes, width)
    rest = header.height + AXIS + parts.notes_height(lines)
    body = len(labels) * page.row_height(len(labels), ROW, LEAST_ROW, rest)
    page.resize(width, rest + body)
    axes = page.axes(left, header.height, inner, body)
    bars.draw(page, axes, inner)
    parts.draw_rule(page, axes, first_of_target(attribution, rows))
    parts.label_rows(page, axes, labels)
    parts.plain_axes(page, axes, parts.values_label(attribution))
    header.draw(page)
    parts.draw_notes(page, lines, header.height + body + AXIS)

"""Bar chart of the attribution of the whole target, one bar per feature."""

from __future__ import annotations

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.bars import Bars
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page, PlotFigure
from apportion_plugins.visualizers.facts import error_notes
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.numbers import Numbers, half_widths
from apportion_plugins.visualizers.selection import table_rows

__all__ = ["Bar"]

ROW = 0.27
AXIS = 0.52
BARS = 3.6


class Bar:
    """Horizontal bars with 95 % intervals, in prompt order."""

    def render(self, attribution: Attribution, *, sort: bool = False, max_features: int | None = 60) -> PlotFigure:
        """Draw the attribution of the whole target.

        Args:
            attribution: the result.
            sort: sort by magnitude, largest first, instead of prompt order.
            max_features: maximum number of features to show, by magnitude; a note says how many are omitted.
                ``None`` for all.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("dave.png")`` saves it.

        Raises:
            InputError: ``max_features`` is not a positive whole number, or the figure would be too tall.
        """
        values, half = np.asarray(attribution.values), half_widths(attribution)
        rows, hidden = table_rows(values, max_features, sort=sort, most=parts.MOST_ROWS)
        fonts = lettering(parts.figure_texts(attribution))
        page = Page(fonts)
        bars = Bars(values[rows], None if half is None else half[rows], Numbers(values[rows]))
        notes = [*hidden, *error_notes(attribution, "Whiskers"), *fonts.notes]
        self._draw(page, attribution, parts.row_labels(attribution, rows, page), bars, notes)
        return page.figure

    def _draw(self, page: Page, attribution: Attribution, labels: list[str], bars: Bars, notes: list[str]) -> None:
        left = MARGIN + page.width_of(labels, parts.LABEL) + 0.1
        inner = bars.width(page, BARS)
        width = left + inner + MARGIN
        title = parts.header(attribution, page, width)
        notes = [line for note in notes for line in page.wrapped(note, width - 2 * MARGIN, NOTE)]
        top, body = parts.header_height(title), ROW * len(labels)
        page.resize(width, top + body + AXIS + parts.notes_height(notes))
        axes = page.axes(left, top, inner, body)
        bars.draw(page, axes, inner)
        parts.label_rows(page, axes, labels)
        parts.plain_axes(page, axes, f"attribution of the whole target ({attribution.unit})")
        parts.draw_header(page, title)
        parts.draw_notes(page, notes, top + body + AXIS)

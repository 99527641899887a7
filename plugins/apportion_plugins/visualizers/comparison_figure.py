"""The figure of a comparison: bars of all results side by side, and below them how well their rankings agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from apportion.errors import InputError, shown
from apportion.options import whole_number
from apportion.results.comparison import ResultComparison
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.agreement_panel import AgreementPanel, Matrix
from apportion_plugins.visualizers.canvas import MARGIN, SUBTITLE, Page, drawn
from apportion_plugins.visualizers.comparison_bars import ColumnsOfBars, relative
from apportion_plugins.visualizers.comparison_facts import (
    about,
    comparison_notes,
    comparison_title,
    correlation_text,
    overlap_text,
    top_count,
)
from apportion_plugins.visualizers.drawing import Axes
from apportion_plugins.visualizers.facts import contrast_text, meaning_of_signs, target_text
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.header import Header, made_header
from apportion_plugins.visualizers.labels import ellipsis, isolated, one_line
from apportion_plugins.visualizers.look import Look
from apportion_plugins.visualizers.numbers import INTERVAL
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import check_limit, largest, left_out, part_of_target

__all__ = ["comparison_figure"]

OWN, UNIT = "own", "unit"
NAME_COLUMNS = 30
ROW, LEAST_ROW, MANY_ROWS, DENSE = 0.25, 0.15, 24, 0.2
WIDEST, LEAST_COLUMN, BETWEEN = 2.2, 0.34, 0.12
USUAL, WIDE = 8.0, 13.0
"""Widths in inches up to which columns are widened: usually, and where the matrices are wider."""
SPACE = 0.2
SLOPE, FLAT = 0.75, 0.22


@dataclass(frozen=True)
class _Columns:
    """Places of the columns of bars, in inches.

    Attributes:
        labels: labels of the rows, shortened to fit.
        left: left edge of the first column.
        width: width of a column.
        heads: names of the results above the columns.
        slanted: the names are slanted, because they are wider than the columns.
        rise: height of the names.
        right: the right edge of everything, names included.
    """

    labels: list[str]
    left: float
    width: float
    heads: list[str]
    slanted: bool
    rise: float
    right: float

    @property
    def lefts(self) -> list[float]:
        """Left edge of each column."""
        return [self.left + i * (self.width + BETWEEN) for i in range(len(self.heads))]


def comparison_figure(
    comparison: ResultComparison, look: Look, *, scale: str, k: int, max_features: int | None
) -> PlotFigure:
    """Draw results side by side.

    Args:
        comparison: the results.
        look: the options of the user.
        scale: ``"own"`` for columns scaled by their own largest magnitude, ``"unit"`` for one scale for each unit.
        k: number of top features in the second matrix.
        max_features: maximum number of features to show; ``None`` for all.

    Raises:
        InputError: an option is out of range, or the content does not fit the size.
    """
    if scale not in (OWN, UNIT):
        raise InputError(
            f"scale={shown(scale)} must be 'own' (each column by its own largest magnitude) or 'unit' (columns of one "
            "unit by the largest of all of them)."
        )
    top = top_count(comparison, whole_number("k", k, least=1))
    weight = relative(comparison)
    check_limit("max_features", len(weight) if max_features is None else max_features, parts.MOST_ROWS)
    rows = largest(weight, max_features)
    bars = ColumnsOfBars.of(comparison, rows, by_unit=scale == UNIT)
    names = [one_line(name) for name in comparison.names]
    kinds = [about(one) for one in comparison.results]
    fonts = lettering([*parts.figure_texts(comparison.results[0], look.title), *names, *kinds, "·±−"])
    notes = [
        *left_out(weight, rows, "features", "max_features", "relative magnitude in any result"),
        _scale_note(comparison, scale),
        *comparison_notes(comparison),
        *([_whiskers(cut=bars.cuts)] if any(one is not None for one in comparison.std_errors) else []),
        *fonts.notes,
    ]
    matrices = [
        Matrix("Rank correlation", comparison.rank_correlation, correlation_text, True),
        Matrix(f"Top {top} in common", comparison.top_overlap(top), lambda share: overlap_text(share, top), False),
    ]

    def layout(page: Page) -> None:
        numbered = names if len(names) == 1 else [f"{i + 1} {name}" for i, name in enumerate(names)]
        heads = [ellipsis(page.drawable(name), NAME_COLUMNS) for name in numbered]
        described = list(map(page.drawable, kinds))
        panel = AgreementPanel(page, heads, described, matrices if len(names) > 1 else [])
        _draw(page, comparison, rows, bars, heads, panel, notes)

    return drawn(look, fonts, layout)


def _draw(
    page: Page,
    comparison: ResultComparison,
    rows: Sequence[int],
    bars: ColumnsOfBars,
    heads: list[str],
    panel: AgreementPanel,
    notes: list[str],
) -> None:
    at = _columns(page, parts.row_labels(comparison.results[0], rows, page), heads, min(panel.width, WIDE))
    panel = _fitted(panel, page.room or max(at.right + MARGIN, panel.width))
    width = page.room or max(at.right + MARGIN, panel.width)
    page.need_width(panel.width)
    if not panel.described:
        notes = [f"{head}: {kind}." for head, kind in zip(heads, panel.kinds, strict=True)] + notes
    header, lines = _header(page, comparison, width), parts.wrapped_notes(page, notes, width)
    top, n, below = header.height + at.rise, len(rows), bars.height_below(page, at.width)
    rest = top + below + (SPACE + panel.height if panel.matrices else 0.0) + parts.notes_height(lines)
    body = n * page.row_height(n, ROW if n <= MANY_ROWS else DENSE, LEAST_ROW, rest)
    page.resize(width, rest + body)
    bars.draw(page, at.lefts, top, at.width, body)
    labels = page.axes(at.left, top, at.width, body)
    labels.set_ylim(n - 0.5, -0.5)
    labels.patch.set_visible(False)
    labels.spines[:].set_visible(False)
    labels.set_xticks([])
    parts.label_rows(page, labels, at.labels)
    _draw_heads(page, at, top)
    if panel.matrices:
        panel.draw(top + body + below + SPACE)
    header.draw(page)
    parts.draw_notes(page, lines, rest + body - parts.notes_height(lines))


def _columns(page: Page, labels: list[str], heads: list[str], below: float) -> _Columns:
    """The places of the columns: as wide as the usual width, or what is below them, allows; or as the user's does."""
    n, longest = len(heads), page.width_of(heads, parts.LABEL)
    around = 2 * MARGIN + 0.1 + (n - 1) * BETWEEN
    least = n * LEAST_COLUMN + SLOPE * longest
    labels, widest = parts.fitted_labels(page, labels, around + least)
    room = (page.room or max(USUAL, below, around + widest + n * 2 * LEAST_COLUMN + SLOPE * longest)) - around - widest
    flat = min(WIDEST, room / n)
    slanted = longest > flat + BETWEEN - 0.08
    width = min(WIDEST, (room - SLOPE * longest + 0.5 * LEAST_COLUMN) / n) if slanted else flat
    left = MARGIN + widest + 0.1
    over = max(0.0, SLOPE * longest - width / 2) if slanted else 0.0
    right = left + n * width + (n - 1) * BETWEEN + over
    return _Columns(labels, left, width, heads, slanted, SLOPE * longest + 0.2 if slanted else FLAT, right)


def _fitted(panel: AgreementPanel, room: float) -> AgreementPanel:
    """The panel with its descriptions and matrices side by side, as far as that fits."""
    choices = [(True, False), (False, False), (True, True), (False, True)]
    made = [replace(panel, described=described, stacked=stacked) for described, stacked in choices]
    return next((one for one in made if one.width <= room + 1e-9), made[-1])


def _draw_heads(page: Page, at: _Columns, top: float) -> None:
    """Write the name of each result above its column."""
    axes: Axes = page.axes(at.left, top - at.rise, at.lefts[-1] + at.width - at.left, at.rise)
    axes.set_xlim(0, page.width_of_axes(axes))
    axes.set_ylim(0, 1)
    axes.axis("off")
    slant = {"rotation": 48.0, "ha": "left", "rotation_mode": "anchor"} if at.slanted else {"ha": "center"}
    for left, head in zip(at.lefts, at.heads, strict=True):
        place = left - at.left + at.width / 2
        axes.text(place, 0.085 / at.rise, head, va="baseline", **page.style(parts.LABEL), **slant)


def _header(page: Page, comparison: ResultComparison, width: float) -> Header:
    one = comparison.results[0]
    quoted = f"“{isolated(target_text(one))}”"
    if one.provenance.contrast is not None:
        quoted += f" against “{isolated(contrast_text(one))}”"
    part = part_of_target(one, comparison.token)
    signed = next((each for each in comparison.results if each.signed), one)
    alike = {each.unit for each in comparison.results if each.signed == signed.signed} == {signed.unit}

    def lines(inner: float) -> list[str]:
        return [
            *page.wrapped(f"{part}: {quoted}", inner, SUBTITLE, most=2),
            *page.wrapped(meaning_of_signs(signed, unit=alike), inner, SUBTITLE),
            page.fitted(page.drawable(one_line(one.provenance.model or "?")), inner, SUBTITLE),
        ]

    return made_header(page, width, comparison_title(comparison), lines)


def _scale_note(comparison: ResultComparison, scale: str) -> str:
    """Scale of the bars of a column."""
    if len(comparison.results) == 1:
        return "The number below the column is what its longest bar can stand for."
    if scale == OWN:
        return "Each column is divided by its own largest magnitude, which is written below it."
    return "Columns of one unit are divided by the largest magnitude of all of them, which is written below each."


def _whiskers(*, cut: bool) -> str:
    more = " Those without an end are longer." if cut else ""
    return f"Whiskers: 95 % interval, {INTERVAL} standard errors of the sampling.{more}"

"""Common parts of the figures: row labels, axes, notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apportion.results.attribution import Attribution
from apportion.results.scored import PLAIN
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page, height_of
from apportion_plugins.visualizers.drawing import Axes, rcParams
from apportion_plugins.visualizers.facts import contrast_text
from apportion_plugins.visualizers.labels import ellipsis, feature_label, one_line, short_label

__all__ = [
    "LABEL",
    "MOST_ROWS",
    "blank_axes",
    "draw_notes",
    "draw_rule",
    "figure_texts",
    "fitted_labels",
    "label_rows",
    "notes_height",
    "plain_axes",
    "row_labels",
    "values_label",
    "wrapped_notes",
]

LABEL = 9.0
LABEL_COLUMNS = 36
LEAST_LABELS = 1.3
"""Least width of long row labels in inches, if the user chose the width of the figure."""
MOST_ROWS = 1000
"""Maximum number of rows; with more, a figure is too tall to be saved as an image."""
_GAP = 0.12


def row_labels(attribution: Attribution, rows: Sequence[int], page: Page) -> list[str]:
    """A label for each shown feature."""
    features = [attribution.features[i] for i in rows]
    if page.look.short:
        return [page.drawable(short_label(feature)) for feature in features]
    return [ellipsis(page.drawable(feature_label(feature)), LABEL_COLUMNS) for feature in features]


def fitted_labels(page: Page, labels: Sequence[str], beside: float) -> tuple[list[str], float]:
    """Row labels, shortened if the user chose a small width, and their width in inches.

    Args:
        page: the figure.
        labels: the labels.
        beside: least width in inches of all that is beside the labels.
    """
    widest = page.width_of(labels, LABEL)
    if page.room is None:
        return list(labels), widest
    page.need_width(beside + min(widest, LEAST_LABELS))
    room = page.room - beside
    shown = list(labels) if widest <= room else [page.fitted(label, room, LABEL) for label in labels]
    return shown, page.width_of(shown, LABEL)


def figure_texts(attribution: Attribution, page_title: str | None) -> list[str]:
    """All texts that a figure may show, to choose fonts."""
    features = [feature_label(feature) for feature in attribution.features]
    own = "−±…“”·⏎␣⇥→"
    return [
        own,
        page_title or "",
        *features,
        *map(one_line, attribution.target_tokens),
        one_line(attribution.target_text),
        contrast_text(attribution),
    ]


def values_label(attribution: Attribution) -> str:
    """Label for the axis of the values: what is attributed, and its unit."""
    target_fn = attribution.provenance.target_fn
    what = "the whole target" if target_fn == PLAIN else one_line(target_fn)
    return f"attribution of {what} ({attribution.unit})"


def wrapped_notes(page: Page, notes: Sequence[str], width: float) -> list[str]:
    """Lines of the notes in a figure of this width in inches."""
    return [line for note in notes for line in page.wrapped(note, width - 2 * MARGIN, NOTE)]


def notes_height(lines: Sequence[str]) -> float:
    """Height of the notes in inches, including the lower margin."""
    return (height_of(len(lines), NOTE) + _GAP if lines else 0.0) + MARGIN


def draw_notes(page: Page, lines: Sequence[str], top: float) -> None:
    """Write the notes at the bottom."""
    page.lines(lines, top + _GAP, NOTE, style="italic")


def label_rows(page: Page, axes: Axes, labels: Sequence[str]) -> None:
    """Label the rows on the left of the axes."""
    axes.set_yticks(range(len(labels)), labels, **page.style(LABEL))
    axes.tick_params(axis="y", length=0, pad=page.points(4.0))


def draw_rule(page: Page, axes: Axes, row: int | None) -> None:
    """Draw a line above a row, which parts the prompt from the target; none for no row."""
    if row is not None:
        axes.axhline(row - 0.5, color=axes.spines["left"].get_edgecolor(), linewidth=page.points(0.8))


def blank_axes(page: Page, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without lines and labels, with one unit per inch, downwards."""
    axes = page.axes(left, top, width, height)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    return axes


def plain_axes(page: Page, axes: Axes, x_label: str) -> None:
    """Show only the bottom axis, with light grid lines."""
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", linewidth=0.5, color=page.faded(rcParams["grid.color"], 0.35))
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=page.points(NOTE), length=page.points(3.5), pad=page.points(3.5))
    # A label that is wider than the axes goes below what is on their left.
    wide = page.width_of([x_label], LABEL) > page.width_of_axes(axes)
    place: dict[str, Any] = {"loc": "right" if wide else "center", "labelpad": page.points(4.0)}
    axes.set_xlabel(x_label, **place, **page.style(LABEL))

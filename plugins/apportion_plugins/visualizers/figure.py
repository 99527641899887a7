"""Common parts of the figures: header, row labels, notes."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, SUBTITLE, TITLE, Page, height_of
from apportion_plugins.visualizers.drawing import Axes
from apportion_plugins.visualizers.facts import contrast_text, target_text
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.labels import ellipsis, feature_label, isolated, one_line

__all__ = ["LABEL", "MOST_ROWS", "draw_header", "draw_notes", "label_rows", "plain_axes", "row_labels"]

LABEL = 9.0
LABEL_COLUMNS = 36
MOST_ROWS = 1000
"""Maximum number of rows; with more, a figure is too tall to be saved as an image."""
_GAP = 0.12


def row_labels(attribution: Attribution, rows: Sequence[int], page: Page) -> list[str]:
    """A label for each shown feature."""
    labels = [ellipsis(feature_label(attribution.features[i]), LABEL_COLUMNS) for i in rows]
    return [page.drawable(label) for label in labels]


def figure_texts(attribution: Attribution) -> list[str]:
    """All texts that a figure may show, to choose fonts."""
    features = [feature_label(feature) for feature in attribution.features]
    own = "−±…“”·⏎␣⇥→"
    return [
        own,
        *features,
        *map(one_line, attribution.target_tokens),
        one_line(attribution.target_text),
        contrast_text(attribution),
    ]


def header(
    attribution: Attribution, page: Page, width: float, *, title: str = "", reading: str = "", part: str = "Target"
) -> list[str]:
    """Lines of the header: title, target, reading aid, model and method.

    Args:
        attribution: the result.
        page: the figure.
        width: width of the figure in inches.
        title: title; empty for the estimand.
        reading: reading aid; empty for the meaning of signs in attributions.
        part: label of the part of the target that is shown.
    """
    reading = reading or f"Above 0 raises the target's score ({attribution.unit}), below 0 lowers it."
    provenance = attribution.provenance
    quoted = f"“{isolated(target_text(attribution))}”"
    if provenance.contrast is not None:
        quoted += f" against “{isolated(contrast_text(attribution))}”"
    asked = provenance.evaluations + provenance.cached
    runs = f"{asked:,} evaluations" if asked else ""
    origin = " · ".join(filter(None, (page.drawable(one_line(provenance.model or "?")), provenance.method, runs)))
    inner = width - 2 * MARGIN
    return [
        page.fitted(page.drawable(title or attribution.estimand), inner, TITLE),
        *page.wrapped(f"{part}: {quoted}", inner, SUBTITLE, most=3),
        *page.wrapped(reading, inner, SUBTITLE),
        page.fitted(origin, inner, SUBTITLE),
    ]


def header_height(lines: Sequence[str]) -> float:
    """Height of the header in inches, including the upper margin."""
    return MARGIN + height_of(1, TITLE) + height_of(len(lines) - 1, SUBTITLE) + _GAP


def draw_header(page: Page, lines: Sequence[str]) -> None:
    """Write the header at the top."""
    # Fallback fonts seldom have a bold face, and matplotlib would warn about that.
    page.lines(lines[:1], MARGIN, TITLE, weight="bold", family=lettering(lines[:1]).families)
    page.lines(lines[1:], MARGIN + height_of(1, TITLE), SUBTITLE)


def notes_height(lines: Sequence[str]) -> float:
    """Height of the notes in inches, including the lower margin."""
    return (height_of(len(lines), NOTE) + _GAP if lines else 0.0) + MARGIN


def draw_notes(page: Page, lines: Sequence[str], top: float) -> None:
    """Write the notes at the bottom."""
    page.lines(lines, top + _GAP, NOTE, style="italic")


def label_rows(page: Page, axes: Axes, labels: Sequence[str]) -> None:
    """Label the rows on the left of the axes."""
    axes.set_yticks(range(len(labels)), labels, **page.style(LABEL))
    axes.tick_params(axis="y", length=0, pad=4)


def plain_axes(page: Page, axes: Axes, x_label: str) -> None:
    """Show only the bottom axis, with light grid lines."""
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", linewidth=0.5, alpha=0.35)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=NOTE)
    axes.set_xlabel(x_label, **page.style(LABEL))

"""The lines above a figure: title, target, reading aid, model and method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apportion.errors import counted
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.canvas import MARGIN, SUBTITLE, TITLE, Page, height_of
from apportion_plugins.visualizers.facts import contrast_text, meaning_of_signs, target_text
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.labels import isolated, one_line
from apportion_plugins.visualizers.look import AUTO

__all__ = ["Header", "header_of", "made_header"]

_GAP = 0.12
_BOLD = 0.9
"""Widths are those of regular type, which is narrower than bold type."""


@dataclass(frozen=True)
class Header:
    """Lines above a figure.

    Attributes:
        title: lines in bold type.
        lines: smaller lines below them.
    """

    title: Sequence[str]
    lines: Sequence[str]

    @property
    def height(self) -> float:
        """Height in inches, including the upper margin."""
        text = height_of(len(self.title), TITLE) + height_of(len(self.lines), SUBTITLE)
        return MARGIN + text + (_GAP if text else 0.0)

    def draw(self, page: Page) -> None:
        """Write the lines at the top."""
        # Fallback fonts seldom have a bold face, and matplotlib would warn about that.
        page.lines(self.title, MARGIN, TITLE, weight="bold", family=lettering(self.title).families)
        page.lines(self.lines, MARGIN + height_of(len(self.title), TITLE), SUBTITLE)


def made_header(page: Page, width: float, title: str, lines: Callable[[float], list[str]]) -> Header:
    """The header that the user chose, or else these lines.

    Args:
        page: the figure.
        width: width of the figure in inches.
        title: the title, unless the user chose another or none.
        lines: gives the lines below it for a width in inches.
    """
    own, inner = page.look.title, width - 2 * MARGIN
    if own == AUTO:
        return Header([page.fitted(page.drawable(title), inner, TITLE)], lines(inner))
    rows = [row for row in (own or "").splitlines() if row.strip()]
    return Header([line for row in rows for line in page.wrapped(one_line(row), _BOLD * inner, TITLE)], [])


def header_of(
    attribution: Attribution, page: Page, width: float, *, title: str = "", reading: str = "", part: str = "Target"
) -> Header:
    """The header of a result's figure.

    Args:
        attribution: the result.
        page: the figure.
        width: width of the figure in inches.
        title: title; empty for the estimand.
        reading: reading aid; empty for the meaning of signs in attributions.
        part: label of the part of the target that is shown.
    """
    reading = reading or meaning_of_signs(attribution)
    provenance = attribution.provenance
    quoted = f"“{isolated(target_text(attribution))}”"
    if provenance.contrast is not None:
        quoted += f" against “{isolated(contrast_text(attribution))}”"
    asked = provenance.evaluations + provenance.cached
    runs = counted(asked, "evaluation") if asked else ""
    origin = " · ".join(filter(None, (page.drawable(one_line(provenance.model or "?")), provenance.method, runs)))

    def lines(inner: float) -> list[str]:
        return [
            *page.wrapped(f"{part}: {quoted}", inner, SUBTITLE, most=3),
            *page.wrapped(reading, inner, SUBTITLE),
            page.fitted(origin, inner, SUBTITLE),
        ]

    return made_header(page, width, title or attribution.estimand, lines)

"""Rows of numbers below the labels of columns, in shades of grey, each on a scale of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page
from apportion_plugins.visualizers.drawing import Axes, rcParams
from apportion_plugins.visualizers.palette import colour_limit

__all__ = ["NUMBER", "Strip", "draw_strips", "strips_height"]

NUMBER = 7.0
"""Font size of the numbers in cells, in points."""
ROW, GAP = 0.22, 0.1
DARKEST = 0.25
"""Share of the colour of the text in that of the largest number."""


@dataclass(frozen=True)
class Strip:
    """One row of numbers.

    Attributes:
        label: label on its left.
        values: a value per column; NaN where unknown.
        texts: the values as text.
    """

    label: str
    values: Float64[np.ndarray, " T"]
    texts: Sequence[str]


def strips_height(strips: Sequence[Strip]) -> float:
    """Height in inches, with the gap below."""
    return len(strips) * ROW + GAP if strips else 0.0


def draw_strips(
    page: Page, strips: Sequence[Strip], left: float, top: float, width: float, *, numbered: bool
) -> list[Axes]:
    """Draw strips over columns, with labels on the left.

    Args:
        page: the figure.
        strips: the strips, from top to bottom.
        left: left edge of the columns in inches.
        top: upper edge of the first strip.
        width: width of all columns.
        numbered: write the numbers.

    Returns:
        The axes of each strip, in which column i is at x = i.
    """
    made = []
    for i, strip in enumerate(strips):
        axes = page.axes(left, top + i * ROW, width, ROW)
        _draw(page, axes, strip, numbered=numbered)
        label = page.fitted(strip.label, left - MARGIN - 0.08, NOTE)
        axes.set_yticks([np.mean(axes.get_ylim())], [label], **page.style(NOTE))
        axes.tick_params(axis="y", length=0, pad=page.points(4.0))
        made.append(axes)
    return made


def _draw(page: Page, axes: Axes, strip: Strip, *, numbered: bool) -> None:
    """Numbers on cells that are darker the larger the number, or bars if there is no room for numbers."""
    axes.set_xlim(-0.5, len(strip.values) - 0.5)
    axes.spines[:].set_visible(False)
    if numbered:
        _draw_numbers(page, axes, strip)
    else:
        _draw_bars(page, axes, strip)


def _draw_numbers(page: Page, axes: Axes, strip: Strip) -> None:
    ink: Any = rcParams["text.color"]
    strength = np.abs(np.nan_to_num(strip.values)) / colour_limit(strip.values)
    shades = [page.faded(ink, DARKEST * float(one)) for one in strength]
    places = range(len(strength))
    axes.bar(places, np.ones(len(strength)), width=0.94, color=shades)
    axes.set_ylim(0, 1.06)
    style = page.style(NUMBER) | {"ha": "center", "va": "center_baseline"}
    for column, text in enumerate(strip.texts):
        axes.text(column, 0.5, text, **style)


def _draw_bars(page: Page, axes: Axes, strip: Strip) -> None:
    ink: Any = rcParams["text.color"]
    known = np.nan_to_num(strip.values)
    low, high = min(0.0, float(known.min(initial=0.0))), max(0.0, float(known.max(initial=0.0)))
    room = 0.08 * ((high - low) or 1.0)
    axes.set_ylim(low - (room if low else 0.0), (high or (0.0 if low else 1.0)) + room)
    axes.bar(range(len(known)), known, width=0.9, color=page.faded(ink, DARKEST))
    axes.axhline(0, color=page.faded(ink, 2 * DARKEST), linewidth=0.5)

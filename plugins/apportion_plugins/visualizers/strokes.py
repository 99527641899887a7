"""Lines that stand for interactions: their widths and colours, and a legend of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import NOTE, Page
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import colour_limit, hex_of

__all__ = ["KEY", "STROKE_KEY", "Strokes"]

KEY = 0.62
"""Height of the legend in inches."""
THIN, THICK = 0.7, 5.0
STRENGTH = 0.8
SAMPLE = 0.4
"""Width of a sample in the legend, and of the gap to the next."""
STROKE_KEY = 7 * SAMPLE
"""Width of the legend in inches, without the numbers that stand out at its ends."""


class Strokes:
    """Widths and colours of lines.

    Args:
        page: the figure.
        values: the interactions that are drawn.
    """

    def __init__(self, page: Page, values: Sequence[float]) -> None:
        self._page = page
        self._limit = colour_limit(np.array(values, dtype=np.float64))

    def width(self, value: float) -> float:
        """Width in points."""
        return THIN + (THICK - THIN) * abs(value) / self._limit

    def colour(self, value: float) -> str:
        """Colour, by the sign."""
        strength = STRENGTH if value > 0 else -STRENGTH
        return self._page.faded(hex_of(self._page.signed_ramp.colour(strength)), 0.85)

    def draw_key(self, left: float, top: float, room: float, name: str) -> None:
        """Draw the legend: two widths of each sign.

        Args:
            left: left edge in inches.
            top: upper edge in inches.
            room: width in inches.
            name: text below it.
        """
        page = self._page
        axes = parts.blank_axes(page, left, top, room, KEY)
        numbers = Numbers([self._limit], digits=2)
        sample = min(SAMPLE, room / 7.5)
        for i, part in enumerate((-1.0, -0.5, 0.5, 1.0)):
            value, x = part * self._limit, 2 * sample * i
            style: dict[str, Any] = {"color": self.colour(value), "linewidth": self.width(value)}
            axes.plot([x, x + sample], [0.23, 0.23], solid_capstyle="round", clip_on=False, **style)
            text = {"ha": "center", "va": "center"}
            axes.text(x + sample / 2, 0.375, numbers.signed(value), **(page.style(NOTE) | text))
        text = {"ha": "center", "va": "center"}
        axes.text(3.5 * sample, 0.53, name, **(page.style(parts.LABEL) | text))

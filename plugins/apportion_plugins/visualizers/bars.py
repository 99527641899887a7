"""Horizontal bars around zero, with whiskers, and numbers at their ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from apportion_plugins.visualizers.canvas import Page
from apportion_plugins.visualizers.drawing import Axes, FuncFormatter, MaxNLocator
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import hex_of

__all__ = ["Bars"]

STRENGTH, FAINT = 0.75, 0.25
GAP = 0.05
NUMBER_SIZE = 8.0


@dataclass(frozen=True)
class Bars:
    """Data of the bars.

    Attributes:
        values: one value per bar; NaN for no bar.
        half_widths: half-widths of the whiskers, NaN where unknown; ``None`` for no whiskers.
        numbers: formats the values.
        faint: bars to draw lighter, because their values are shared out to other bars; ``None`` for none.
    """

    values: Float64[np.ndarray, " F"]
    half_widths: Float64[np.ndarray, " F"] | None
    numbers: Numbers
    faint: Bool[np.ndarray, " F"] | None = None

    def width(self, page: Page, room: float) -> float:
        """Width of axes, in inches, for bars of ``room`` inches and the numbers next to them."""
        left, right = self._margins(page)
        return room + left + right

    def draw(self, page: Page, axes: Axes, width: float) -> None:
        """Draw into axes of ``width`` inches, one row per value, the first on top."""
        rows = np.arange(len(self.values))
        heights = np.nan_to_num(self.values)
        ink = axes.spines["left"].get_edgecolor()
        faint = np.zeros(len(heights), bool) if self.faint is None else self.faint
        strength = np.copysign(np.where(faint, FAINT, STRENGTH), heights)
        colours = [hex_of(page.ramp.colour(float(s))) for s in strength]
        axes.barh(rows, heights, height=0.68, color=colours)
        if self.half_widths is not None:
            known = np.isfinite(self.half_widths) & np.isfinite(self.values)
            style: dict[str, Any] = {"fmt": "none", "elinewidth": 1.1, "capsize": 2.2, "ecolor": ink}
            axes.errorbar(heights[known], rows[known], xerr=self.half_widths[known], **style)
        axes.axvline(0, color=ink, linewidth=0.8)
        self._scale(page, axes, width)
        self._number(page, axes, width)

    def _ends(self) -> Float64[np.ndarray, "2 F"]:
        """Start and end of each bar, including its whisker."""
        values = np.nan_to_num(self.values)
        half = 0.0 if self.half_widths is None else np.nan_to_num(self.half_widths)
        return np.stack([np.minimum(0.0, values - half), np.maximum(0.0, values + half)])

    def _texts(self) -> list[str]:
        if self.half_widths is None:
            return [self.numbers.signed(v) for v in self.values]
        pairs = zip(self.values, self.half_widths, strict=True)
        return [self.numbers.signed(v) + (" ± ?" if np.isnan(h) else "") for v, h in pairs]

    def _margins(self, page: Page) -> tuple[float, float]:
        """Margins for numbers in inches: on the left, for negative values, and on the right."""
        negative = np.nan_to_num(self.values) < 0
        texts = self._texts()
        sides = [[t for t, n in zip(texts, negative, strict=True) if n == side] for side in (True, False)]
        left, right = (page.width_of(side, NUMBER_SIZE) + 2 * GAP if side else GAP for side in sides)
        return left, right

    def _scale(self, page: Page, axes: Axes, width: float) -> None:
        left, right = self._margins(page)
        low, high = self._ends()[0].min(initial=0.0), self._ends()[1].max(initial=0.0)
        if low == high:
            low, high = (-1.0, 1.0)
        inch = (high - low) / (width - left - right)
        axes.set_xlim(low - left * inch, high + right * inch)
        axes.set_ylim(len(self.values) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(max(2, int(width / 0.55)), steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(partial(_tick, sign=self.numbers.plus)))

    def _number(self, page: Page, axes: Axes, width: float) -> None:
        low, high = axes.get_xlim()
        gap = GAP * (high - low) / width
        (starts, stops), texts = self._ends(), self._texts()
        for row, value in enumerate(np.nan_to_num(self.values)):
            x, side = (starts[row] - gap, "right") if value < 0 else (stops[row] + gap, "left")
            axes.text(x, row, texts[row], ha=side, va="center_baseline", **page.style(NUMBER_SIZE))


def _tick(value: float, _position: int | None = None, *, sign: str) -> str:
    text = f"{value:{sign}.4g}" if value else "0"
    return re.sub(r"e([+-])0*", r"e\1", text).replace("e+", "e").replace("-", "−")

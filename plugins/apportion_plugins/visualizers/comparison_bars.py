"""The upper part of the figure of a comparison: a column of bars for each result, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion.results.comparison import ResultComparison
from apportion_plugins.visualizers.bars import STRENGTH
from apportion_plugins.visualizers.canvas import NOTE, Page
from apportion_plugins.visualizers.drawing import Axes, rcParams
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.numbers import INTERVAL, Numbers
from apportion_plugins.visualizers.palette import colour_limit, hex_of

__all__ = ["ColumnsOfBars", "relative"]

LINE = 0.165
"""Height of a line below a column."""
UNIT_LINES = 3
"""Maximum number of lines of a unit."""
BESIDE = 0.06
"""Width by which a line may exceed its column."""
STRIPE = 0.06
LONGEST = 1.3
"""End of the longest whiskers, relative to the longest bar; one uncertain value must not flatten all others."""
PAD = 0.06


@dataclass(frozen=True)
class ColumnsOfBars:
    """Bars of R results for the shown features, each column on its own scale.

    Attributes:
        strength: values divided by the limit of their column.
        half_widths: half-widths of 95 % intervals, divided likewise; NaN where exact or unknown.
        limits: the value that the full length of a bar stands for, one per result.
        signed: for each result, whether its values have signs.
        below: two texts below each column: its limit, and its unit.
    """

    strength: Float64[np.ndarray, "R N"]
    half_widths: Float64[np.ndarray, "R N"]
    limits: Float64[np.ndarray, " R"]
    signed: Sequence[bool]
    below: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, comparison: ResultComparison, rows: Sequence[int], *, by_unit: bool) -> ColumnsOfBars:
        """The bars of some features.

        Args:
            comparison: the results.
            rows: indices of the features.
            by_unit: results of one unit share their scale.
        """
        limits = limits_of(comparison, by_unit=by_unit)
        errors = [np.zeros(0) if one is None else np.asarray(one)[list(rows)] for one in comparison.std_errors]
        half = [INTERVAL * one if len(one) else np.full(len(rows), np.nan) for one in errors]
        signed = [one.signed for one in comparison.results]
        below = [
            (("±" if has_sign else "") + Numbers([limit]).plain(limit), one_line(result.unit))
            for limit, has_sign, result in zip(limits, signed, comparison.results, strict=True)
        ]
        strength = comparison.values[:, list(rows)] / limits[:, None]
        return cls(strength, np.stack(half) / limits[:, None], limits, signed, below)

    @property
    def lowest(self) -> float:
        """The common left end of columns of signed values; 0 if nothing reaches below 0."""
        return max(-LONGEST, min(0.0, *(float(row.min()) for row in self._ends(-1.0)[list(self.signed)]), 0.0))

    @property
    def highest(self) -> float:
        """The common right end of all columns."""
        return min(LONGEST, float(self._ends(1.0).max()))

    @property
    def cuts(self) -> bool:
        """True if whiskers are longer than their column."""
        return bool((self._ends(1.0) > LONGEST).any() or (self._ends(-1.0) < -LONGEST).any())

    def _ends(self, side: float) -> Float64[np.ndarray, "R N"]:
        """The ends of bars with their whiskers, on one side of zero."""
        found: np.ndarray = self.strength + side * np.nan_to_num(self.half_widths)
        return found

    def height_below(self, page: Page, width: float) -> float:
        """Height of the lines below columns of a width, in inches."""
        return 0.03 + LINE * max(len(self._lines(page, i, width)) for i in range(len(self.below)))

    def _lines(self, page: Page, i: int, width: float) -> list[str]:
        """The lines below a column: its limit, and its unit in as many lines as it takes."""
        limit, unit = (page.drawable(text) for text in self.below[i])
        room = width + BESIDE
        return [page.fitted(limit, room, NOTE), *page.wrapped(unit, room, NOTE, most=UNIT_LINES)]

    def draw(self, page: Page, lefts: Sequence[float], top: float, width: float, height: float) -> None:
        """Draw all columns.

        Args:
            page: the figure.
            lefts: left edge of each column in inches.
            top: upper edge in inches.
            width: width of a column in inches.
            height: height in inches.
        """
        n = self.strength.shape[1]
        ground = page.axes(lefts[0], top, lefts[-1] + width - lefts[0], height)
        ground.set_xlim(0, 1)
        ground.set_ylim(n - 0.5, -0.5)
        for row in range(1, n, 2):
            ground.axhspan(row - 0.5, row + 0.5, color=page.faded(rcParams["text.color"], STRIPE), linewidth=0)
        ground.axis("off")
        for i, left in enumerate(lefts):
            self._column(page, page.axes(left, top, width, height), i)

    def _column(self, page: Page, axes: Axes, i: int) -> None:
        values, half = np.nan_to_num(self.strength[i]), self.half_widths[i]
        ramp = page.ramp if self.signed[i] else page.ramp.of_magnitudes()
        rows = np.arange(len(values))
        colours = [hex_of(ramp.colour(STRENGTH if value >= 0 else -STRENGTH)) for value in values]
        ink = axes.spines["left"].get_edgecolor()
        axes.barh(rows, values, height=0.68, color=colours)
        known = np.isfinite(half)
        if known.any():
            style: dict[str, Any] = {"fmt": "none", "elinewidth": 0.9, "capsize": 1.4, "ecolor": ink}
            axes.errorbar(values[known], rows[known], xerr=half[known], **style)
        axes.axvline(0, color=ink, linewidth=0.8)
        axes.set_xlim(self.lowest - PAD if self.signed[i] else -PAD / 2, self.highest + PAD)
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_yticks([])
        axes.set_xticks([])
        axes.patch.set_visible(False)
        for side in axes.spines.values():
            side.set_visible(False)
        centre: dict[str, Any] = {"ha": "center", "va": "top", "transform": axes.transAxes}
        line = LINE / axes.get_position().height / float(page.figure.get_size_inches()[1]) * page.points(1.0)
        for row, text in enumerate(self._lines(page, i, page.width_of_axes(axes))):
            axes.text(0.5, -(0.2 + row) * line, text, **page.style(NOTE), **centre)


def limits_of(comparison: ResultComparison, *, by_unit: bool) -> Float64[np.ndarray, " R"]:
    """The largest magnitude of each result, or of all results with its unit; 1 if all values are zero."""
    own = np.array([colour_limit(values) for values in comparison.values])
    if not by_unit:
        return own
    units = [one.unit for one in comparison.results]
    return np.array([max(o for o, other in zip(own, units, strict=True) if other == unit) for unit in units])


def relative(comparison: ResultComparison) -> Float64[np.ndarray, " F"]:
    """The largest magnitude of each feature in any result, relative to the largest of that result."""
    strength = np.abs(comparison.values) / limits_of(comparison, by_unit=False)[:, None]
    found: np.ndarray = strength.max(axis=0)
    return found

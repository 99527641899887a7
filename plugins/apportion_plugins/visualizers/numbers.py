"""Formatting of values: one precision for all values shown together, always with a sign."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64

from apportion.results.attribution import Attribution

__all__ = ["DECIMALS", "INTERVAL", "Numbers", "half_widths"]

DECIMALS = 2
"""Fewest decimals in tables and at bars."""

INTERVAL = 1.96
"""Half-width of a 95 % interval in standard errors."""


class Numbers:
    """Formats values of one kind.

    Args:
        values: all values that will be shown together.
        digits: number of digits for the largest.
        decimals: fewest decimals, so that one large value does not round the others to nothing; as far as five digits
            allow.
        signed: write a plus sign before values above 0; ``False`` for magnitudes.
    """

    def __init__(self, values: Iterable[float], digits: int = 3, decimals: int = 0, *, signed: bool = True) -> None:
        self.plus = "+" if signed else "-"
        """The sign that Python's format takes."""
        finite = [abs(v) for v in values if math.isfinite(v)]
        largest = max(finite, default=0.0)
        exponent = math.floor(math.log10(largest)) if largest > 0 else 0
        self._digits = digits
        self._scientific = not -4 <= exponent < 5
        self._decimals = max(0, digits - 1 - exponent, min(decimals, 4 - exponent))

    def signed(self, value: float) -> str:
        """Format with a sign, unless for a magnitude: ``+1.20``, ``−0.03``, ``0``, or ``n/a`` for NaN."""
        return self._text(value, self.plus) if value else "0"

    def plain(self, value: float) -> str:
        """Format without a plus sign, as for errors and scores: ``1.20``, or ``?`` for NaN."""
        return "?" if math.isnan(value) else self._text(value, "-")

    def _text(self, value: float, sign: str) -> str:
        if math.isnan(value):
            return "n/a"
        if math.isinf(value):
            return f"{'−' if value < 0 else sign.strip('-')}∞"
        if not self._scientific:
            return f"{value:{sign}.{self._decimals}f}".replace("-", "−")
        mantissa, exponent = f"{value:{sign}.{self._digits - 1}e}".split("e")
        power = int(exponent)
        # Beside powers of ten, a value that is readable without one is written without it.
        if -4 <= power < 5:
            return f"{value:{sign}.{max(0, self._digits - 1 - power)}f}".replace("-", "−")
        return f"{mantissa}e{power}".replace("-", "−")


def half_widths(attribution: Attribution) -> Float64[np.ndarray, " F"] | None:
    """Half-width of each value's 95 % interval, NaN where unknown; ``None`` for exact values."""
    return None if attribution.std_error is None else INTERVAL * np.asarray(attribution.std_error)

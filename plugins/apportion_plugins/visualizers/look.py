"""Options that all figures share: title, labels, size and resolution."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass

from apportion.errors import InputError, shown

__all__ = ["AUTO", "Look", "is_between"]

AUTO = "auto"
"""The title that a view writes itself."""
_LABELS = ("full", "short")
_LEAST, _MOST = 0.5, 100.0
_LEAST_DPI = 10
"""With fewer dots per inch, letters would have no pixel."""
_MOST_PIXELS = 2**16
"""Matplotlib saves no images of more pixels in a direction."""


@dataclass(frozen=True)
class Look:
    """The appearance of a figure.

    Attributes:
        title: ``"auto"`` for the lines that the view writes, ``None`` or ``""`` for none, or another text.
        labels: ``"full"`` or ``"short"``.
        size: width and height in inches; ``None``, also for one of them, for what the content needs.
        dpi: dots per inch of images; ``None`` for matplotlib's setting.

    Raises:
        InputError: an option is of another type or out of range.
    """

    title: str | None = AUTO
    labels: str = "full"
    size: Sequence[float | None] | None = None
    dpi: float | None = None

    def __post_init__(self) -> None:
        if not (self.title is None or isinstance(self.title, str)):
            raise InputError(f"title={shown(self.title)} must be a text, or None for no title.")
        if self.labels not in _LABELS:
            raise InputError(f"labels={shown(self.labels)} must be 'full' (names and texts) or 'short' (names alone).")
        if self.dpi is not None and not is_between(self.dpi, _LEAST_DPI, _MOST_PIXELS):
            raise InputError(f"dpi={shown(self.dpi)} must be a number of at least {_LEAST_DPI}, such as 300.")
        if not self._has_valid_size():
            raise InputError(
                f"size={shown(self.size)} must be the width and height in inches, each from {_LEAST} to {_MOST:.0f}, "
                "or None for what the content needs: (6.5, 4), (3.3, None)."
            )
        if max(side or 0.0 for side in (self.width, self.height)) * (self.dpi or 0.0) >= _MOST_PIXELS:
            raise InputError(f"size={shown(self.size)} at dpi={shown(self.dpi)} is more than {_MOST_PIXELS:,} pixels.")

    @property
    def width(self) -> float | None:
        """Width in inches; ``None`` for what the content needs."""
        return None if self.size is None else self.size[0]

    @property
    def height(self) -> float | None:
        """Height in inches; ``None`` for what the content needs."""
        return None if self.size is None else self.size[1]

    @property
    def short(self) -> bool:
        """True for labels that are names alone."""
        return self.labels == "short"

    def _has_valid_size(self) -> bool:
        size = self.size
        if size is None:
            return True
        if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
            return False
        return all(side is None or is_between(side, _LEAST, _MOST) for side in size)


def is_between(value: object, least: float, most: float) -> bool:
    """True if an option is a number from ``least`` to ``most``; any object may be asked about."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return least <= float(value) <= most  # NaN is not between any numbers
    except OverflowError:
        return False

"""Scores by which a model that cannot be hashed is told from another one. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apportion.protocols.row import Row

__all__ = ["Likeness", "differ"]

LEAST_CHANGE = 0.05
"""Difference in nats from which a model that cannot be hashed must have changed."""


def differ(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> bool:
    """True if scores of one row are certainly those of two models: more than a cache's tolerance, and twice as much."""
    most = max(LEAST_CHANGE, 2 * tolerance)
    return len(ours) != len(theirs) or any(abs(a - b) > most for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Likeness:
    """Scores of one row, by which a model that cannot be hashed is told from another one.

    Caches compare them with those that were stored under the same ``checksum``, and keep the scores of models apart
    that differ by more than the tolerance.

    Attributes:
        row: the row.
        log_probs: its scores when the session was opened, ``Float[T]``.
        tolerance: largest difference that the same model may show, in nats.
    """

    row: Row
    log_probs: tuple[float, ...]
    tolerance: float

    def fits(self, stored: Sequence[float]) -> bool:
        """True if stored scores of the row may be those of this model."""
        alike = len(stored) == len(self.log_probs)
        return alike and all(abs(a - b) <= self.tolerance for a, b in zip(self.log_probs, stored, strict=True))

"""Selection of the scores that stand out: those a number of standard deviations above the mean, and the largest."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

__all__ = ["FEW", "outlier_threshold", "outliers"]

ROUNDING = 1e-9

FEW = 2
"""Number of scores up to which the standard deviation is that of a population."""


def outlier_threshold(scores: Float64[np.ndarray, " N"], deviations: float | None) -> float:
    """The least magnitude that stands out: mean + ``deviations`` × standard deviation of the magnitudes.

    The deviation is that of a sample, as in Inseq (divided by N − 1). Of two scores, none could ever be one such
    deviation above their mean, so theirs is that of a population (divided by N): the larger one is just that far
    above. A single score is its own threshold. Inseq takes the mean of signed scores, which for scores of both signs
    has no meaning as a bound on magnitudes; for scores that are all positive, as divergences are, the two are the same.

    Args:
        scores: the scores, of any sign.
        deviations: number of standard deviations; ``None`` for a threshold of 0.
    """
    size = np.abs(scores)
    if deviations is None or not len(size):
        return 0.0
    spread = float(size.std(ddof=1 if len(size) > FEW else 0))
    return float(size.mean()) + deviations * spread


def outliers(
    scores: Float64[np.ndarray, " N"], deviations: float | None, most: int | None = None
) -> Bool[np.ndarray, " N"]:
    """The scores that reach the threshold and are not 0, at most the ``most`` largest ones."""
    size, threshold = np.abs(scores), outlier_threshold(scores, deviations)
    chosen: np.ndarray = (size >= threshold * (1 - ROUNDING)) & (size > 0)
    if most is not None:
        largest = np.argsort(-np.where(chosen, size, -1.0), kind="stable")[:most]
        chosen &= np.isin(np.arange(len(size)), largest)
    return chosen

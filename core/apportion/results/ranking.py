"""Stability of the ranking of features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

__all__ = ["TOP", "top_agreement", "top_size"]

TOP = 3
"""Number of top features whose stability is reported."""
NORMAL_DRAWS = 1000
_TIED = 1e-9


def top_agreement(
    values: Float64[np.ndarray, " F"],
    std_error: Float64[np.ndarray, " F"] | None,
    replicates: Float64[np.ndarray, "R F"] | None = None,
) -> Float64[np.ndarray, " F"] | None:
    """For k = 1, …, F, the fraction of replicates whose k features of largest magnitude are those of the result.

    If features tie, any of them may count among the k.

    Args:
        values: values of the whole target.
        std_error: standard errors; ``None`` for exact values, whose agreement is 1 for every k.
        replicates: bootstrap replicates of the values; ``None`` to draw independent normal numbers around the values,
            with a fixed seed.

    Returns:
        The fractions, or ``None`` if a standard error is unknown.
    """
    if std_error is None:
        return np.ones(len(values))
    if np.isnan(std_error).any():
        return None
    if replicates is None:
        draws = np.random.default_rng(0).standard_normal((NORMAL_DRAWS, len(values)))
        replicates = values + std_error * draws
    size = np.abs(replicates)[:, np.argsort(-np.abs(values), kind="stable")]
    least = np.minimum.accumulate(size, axis=1)[:, :-1]
    most_after = np.maximum.accumulate(size[:, ::-1], axis=1)[:, ::-1][:, 1:]
    same = least >= most_after - _TIED * size.max(axis=1, keepdims=True)
    return np.append(same.mean(axis=0), 1.0)


def top_size(values: Float64[np.ndarray, " F"]) -> int:
    """Number of top features: 3, or fewer if the third ties with the fourth, or more if all of the first ones tie."""
    n = len(values)
    size = np.sort(np.abs(values))[::-1]
    apart = [k for k in range(1, n) if size[k - 1] - size[k] > _TIED * size[0]] + [n]
    return max((k for k in apart if k <= TOP), default=apart[0])

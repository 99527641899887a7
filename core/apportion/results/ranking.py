"""Whether the features that come first would come first again."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

__all__ = ["TOP", "top_agreement", "top_size"]

TOP = 3
"""As many features as a reader is told of."""
NORMAL_DRAWS = 1000
_TIED = 1e-9


def top_agreement(
    values: Float64[np.ndarray, " F"],
    std_error: Float64[np.ndarray, " F"] | None,
    replicates: Float64[np.ndarray, "R F"] | None = None,
) -> Float64[np.ndarray, " F"] | None:
    """For k = 1, …, F the share of replicates whose k features of largest magnitude are those of the result.

    Where features tie, any of them may be counted to the k.

    Args:
        values: of the whole target.
        std_error: ``None`` for exact values, which would come out the same: 1 for every k.
        replicates: what the values could have been with other draws; ``None`` for independent normal numbers around
            the values (with a seed of their own).

    Returns:
        ``None`` where a standard error is unknown.
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
    """How many features the top has: 3, or fewer where the third ties with the fourth (more where all of them tie)."""
    n = len(values)
    size = np.sort(np.abs(values))[::-1]
    apart = [k for k in range(1, n) if size[k - 1] - size[k] > _TIED * size[0]] + [n]
    return max((k for k in apart if k <= TOP), default=apart[0])

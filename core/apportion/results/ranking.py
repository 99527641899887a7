"""Rankings of features: their stability, and the agreement of two."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

__all__ = ["TOP", "mean_ranks", "rank_correlation", "tie_groups", "top_agreement", "top_overlap", "top_size"]

TOP = 3
"""Number of top features whose stability is reported."""
NORMAL_DRAWS = 1000
_TIED = 1e-9
"""Relative difference up to which two numbers count as equal: of the largest magnitude, or of the range."""
_ROUNDING = 1e-12


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


def top_overlap(a: Float64[np.ndarray, " F"], b: Float64[np.ndarray, " F"], k: int) -> float:
    """Share of the k features of largest magnitude that two attributions have in common."""
    first, second = (set(np.argsort(-np.abs(values), kind="stable")[:k].tolist()) for values in (a, b))
    return len(first & second) / min(k, len(a))


def rank_correlation(a: Float64[np.ndarray, " N"], b: Float64[np.ndarray, " N"]) -> float:
    """Spearman's rank correlation; 0 if all numbers of either are equal."""
    first, second = (ranks - ranks.mean() for ranks in (mean_ranks(a), mean_ranks(b)))
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return max(-1.0, min(1.0, float(first @ second) / scale)) if scale else 0.0


def mean_ranks(numbers: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
    """Rank of each number, lowest first; ties share their mean rank."""
    order, group = tie_groups(numbers)
    size = np.bincount(group)
    ranks = np.empty(len(numbers))
    ranks[order] = (size.cumsum() - (size - 1) / 2)[group]
    return ranks


def tie_groups(numbers: Float64[np.ndarray, " N"]) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """The ascending order of the numbers, and the group of ties at each of its positions, from 0."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    rounding = _TIED * (ordered[-1] - ordered[0]) + _ROUNDING * np.abs(ordered).max()
    return order, np.concatenate([[0], (np.diff(ordered) > rounding).cumsum()])

"""Interaction indices of pairs by regression on coalitions and their complements.

The mean of v over a coalition and its complement, as a function of the coalition, has no terms of odd order. It is
fitted by a constant and all products of two features. The coefficients give the pairwise interactions. Interactions of
three features are of odd order and do not contribute.

Banzhaf: coalitions are uniform, so products of different pairs are orthogonal. The coefficients of the fit to all
coalitions are therefore the Banzhaf interaction indices of any game.

Shapley: split a symmetric matrix into a part u_i + u_j, given by its row sums, and a part whose rows sum to 0.

- The row sums of the Shapley interaction index are known from 2n + 2 coalitions: I_ij is the Shapley value of j in the
  game δ(S) = v(S∪i) − v(S), and Shapley values are efficient, so Σ_j I_ij = δ(N∖i) − δ(∅).
- The part whose rows sum to 0 is that of the regression's coefficients, if coalitions of size t have the weight
  1 / ((n−3) · C(n−4, t−2)) for 2 ≤ t ≤ n−2. This is KernelSHAP-IQ (Fumagalli et al. 2024, arXiv 2405.10852) for
  order 2. Other sizes do not contribute to this part, so their weights are arbitrary. All sizes have the same total
  leverage, so they are drawn equally often, as Leverage SHAP (arXiv 2410.01917) does for Shapley values.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion_plugins.methods.regression import Fit, weighted_least_squares

__all__ = ["banzhaf_interactions", "columns_of", "pair_design", "row_sum_part", "shapley_interactions", "size_weights"]


def columns_of(n_features: int) -> int:
    """Number of coefficients in the fit of the even part: a constant and one per pair."""
    return 1 + n_features * (n_features - 1) // 2


def pair_design(half: Bool[Tensor, "S F"]) -> Float[Tensor, "S P"]:
    """Design matrix: a constant and the products of two centred features, whose coefficients are interactions."""
    centred = half.double() - 0.5
    first, second = _pairs(half.shape[1])
    return torch.cat([torch.ones(len(half), 1, dtype=torch.float64), centred[:, first] * centred[:, second]], dim=1)


def banzhaf_interactions(
    half: Bool[Tensor, "S F"],
    even: Float[Tensor, "S K"],
    weight: Float[Tensor, " S"],
    share: Float[Tensor, " S"] | None,
) -> Fit:
    """Banzhaf interaction indices from uniform coalitions, one row per pair of features.

    Args:
        half: one coalition of each pair of a coalition and its complement.
        even: mean of v over that coalition and its complement.
        weight: weights in the regression.
        share: sampling fraction; see ``Coalitions``.
    """
    return weighted_least_squares(
        pair_design(half), even, weight, share=share, report=lambda rows: rows[:, 1:], replicated=False
    )


def shapley_interactions(
    half: Bool[Tensor, "S F"],
    even: Float[Tensor, "S K"],
    weight: Float[Tensor, " S"],
    share: Float[Tensor, " S"] | None,
    row_sums: Float[Tensor, "F K"],
) -> Fit:
    """Shapley interaction indices from coalitions with ``size_weights``, one row per pair of features.

    Args:
        half: one coalition of each pair of a coalition and its complement.
        even: mean of v over that coalition and its complement.
        weight: weights in the regression.
        share: sampling fraction; see ``Coalitions``.
        row_sums: row sums of the index, known without sampling.
    """
    n = half.shape[1]
    fit = weighted_least_squares(
        pair_design(half),
        even,
        weight,
        share=share,
        report=lambda rows: rows[:, 1:] - row_sum_part(_sums(rows[:, 1:], n)),
        replicated=False,
    )
    return Fit(fit.coefficients + row_sum_part(row_sums.T).T, fit.std_error)


def size_weights(half: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
    """Weights of pairs of coalitions for the Shapley interaction index.

    All pairs of sizes 0 and 1 must be present, and there must be at least 4 features.
    """
    n, sizes = half.shape[1], half.sum(1)
    drawn = torch.bincount(torch.cat([sizes, n - sizes]), minlength=n + 1).double()
    weight = torch.empty(len(half), dtype=torch.float64)
    inner = (sizes > 1) & (sizes < n - 1)
    t = sizes[inner].double()
    weight[inner] = 1 / (t * (t - 1) * (n - t) * (n - t - 1) * drawn[sizes[inner]])
    # The smallest weight of the others, which keeps the regression well conditioned.
    weight[~inner] = 1 / (2 * (n - 2) * (n - 3) * n)
    return weight


def row_sum_part(sums: Float[Tensor, "N F"]) -> Float[Tensor, "N P"]:
    """Matrices u_i + u_j with these row sums, as rows of pairs; for at least 3 features."""
    n = sums.shape[1]
    total = sums.sum(1, keepdim=True) / (2 * n - 2)
    u = (sums - total) / (n - 2)
    first, second = _pairs(n)
    return u[:, first] + u[:, second]


def _sums(rows: Float[Tensor, "N P"], n: int) -> Float[Tensor, "N F"]:
    """Row sums of the symmetric matrices given by these pairs."""
    first, second = _pairs(n)
    sums = torch.zeros(len(rows), n, dtype=rows.dtype)
    return sums.index_add_(1, first, rows).index_add_(1, second, rows)


def _pairs(n: int) -> tuple[Tensor, Tensor]:
    """First and second feature of every pair, in column order."""
    first, second = torch.triu_indices(n, n, offset=1)
    return first, second

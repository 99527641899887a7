"""Interaction indices of pairs by regression on coalitions and their complements.

The mean of v over a coalition and its complement, as a function of the coalition, has no terms of odd order. Fitted by
a constant and all products of two features, its coefficients tell the interactions of pairs; interactions of three
features are of odd order and leave no trace.

Banzhaf: coalitions are uniform, where products of different pairs are orthogonal, and so the coefficients of the fit
on all coalitions are the Banzhaf interaction indices of any game.

Shapley: split a symmetric matrix into a part u_i + u_j, given by its row sums, and a part whose rows sum to 0.

- The row sums of the Shapley interaction index are known from 2n + 2 coalitions: I_ij is the Shapley value of j in the
  game δ(S) = v(S∪i) − v(S), and Shapley values add up, so Σ_j I_ij = δ(N∖i) − δ(∅).
- The part without row sums is that of the regression's coefficients, if coalitions of size t weigh
  1 / ((n−3) · C(n−4, t−2)) for 2 ≤ t ≤ n−2. This is KernelSHAP-IQ (Fumagalli et al. 2024, arXiv 2405.10852) for
  order 2; other sizes have no such part and weigh what they like. Summed over each size the leverage is the same, so
  sizes are drawn alike, as Leverage SHAP (arXiv 2410.01917) does for Shapley values.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion_plugins.methods.regression import Fit, weighted_least_squares

__all__ = ["banzhaf_interactions", "columns_of", "pair_design", "row_sum_part", "shapley_interactions", "size_weights"]


def columns_of(n_features: int) -> int:
    """Coefficients of the fit of the even part: a constant and every pair."""
    return 1 + n_features * (n_features - 1) // 2


def pair_design(half: Bool[Tensor, "S F"]) -> Float[Tensor, "S P"]:
    """A constant and the products of two features, centred: the coefficient of a product is the pair's interaction."""
    centred = half.double() - 0.5
    first, second = _pairs(half.shape[1])
    return torch.cat([torch.ones(len(half), 1, dtype=torch.float64), centred[:, first] * centred[:, second]], dim=1)


def banzhaf_interactions(
    half: Bool[Tensor, "S F"],
    even: Float[Tensor, "S K"],
    weight: Float[Tensor, " S"],
    share: Float[Tensor, " S"] | None,
) -> Fit:
    """One row for each pair of features; uniform coalitions.

    Args:
        half: one coalition of each pair.
        even: the mean of v over it and its complement.
        weight: in the regression.
        share: how much of what could have been drawn was drawn.
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
    """One row for each pair of features; coalitions with ``size_weights``.

    Args:
        half: one coalition of each pair.
        even: the mean of v over it and its complement.
        weight: in the regression.
        share: how much of what could have been drawn was drawn.
        row_sums: of the index, known without sampling.
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
    """Of pairs for the Shapley interaction index, those of sizes 0 and 1 all there; at least 4 features."""
    n, sizes = half.shape[1], half.sum(1)
    drawn = torch.bincount(torch.cat([sizes, n - sizes]), minlength=n + 1).double()
    weight = torch.empty(len(half), dtype=torch.float64)
    inner = (sizes > 1) & (sizes < n - 1)
    t = sizes[inner].double()
    weight[inner] = 1 / (t * (t - 1) * (n - t) * (n - t - 1) * drawn[sizes[inner]])
    # As much as the smallest of the others, which keeps the regression well conditioned.
    weight[~inner] = 1 / (2 * (n - 2) * (n - 3) * n)
    return weight


def row_sum_part(sums: Float[Tensor, "N F"]) -> Float[Tensor, "N P"]:
    """The matrices u_i + u_j with these row sums, as rows of pairs; at least 3 features."""
    n = sums.shape[1]
    total = sums.sum(1, keepdim=True) / (2 * n - 2)
    u = (sums - total) / (n - 2)
    first, second = _pairs(n)
    return u[:, first] + u[:, second]


def _sums(rows: Float[Tensor, "N P"], n: int) -> Float[Tensor, "N F"]:
    """Row sums of the symmetric matrices with these pairs."""
    first, second = _pairs(n)
    sums = torch.zeros(len(rows), n, dtype=rows.dtype)
    return sums.index_add_(1, first, rows).index_add_(1, second, rows)


def _pairs(n: int) -> tuple[Tensor, Tensor]:
    """The two features of every pair, in the order of the columns."""
    first, second = torch.triu_indices(n, n, offset=1)
    return first, second

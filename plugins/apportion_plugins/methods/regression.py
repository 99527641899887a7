"""Weighted least squares with several right-hand sides, and the sampling error of its coefficients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.special import stdtrit
from torch import Tensor

from apportion.errors import BudgetError, counted
from apportion_plugins.methods.bootstrap import replicates_of

__all__ = ["Fit", "default_budget", "require_determined", "weighted_least_squares"]


def default_budget(n_features: int) -> int:
    """Number of evaluations if the user sets no budget: enough for meaningful standard errors."""
    return max(64, 16 * n_features)


def require_determined(n_features: int, budget: int) -> None:
    """Refuse a budget with fewer pairs of coalitions than features.

    Raises:
        BudgetError: the message says what would suffice.
    """
    if budget < 2 * n_features:
        raise BudgetError(
            f"A regression on {counted(n_features, 'feature')} takes at least {2 * n_features} evaluations, and "
            f"the budget is "
            f"{budget}. Raise it ({4 * n_features} or more for standard errors), or use method='ablation' "
            f"({n_features + 1})."
        )


@dataclass(frozen=True)
class Fit:
    """Coefficients and their standard errors.

    Attributes:
        coefficients: one column for each right-hand side.
        std_error: NaN if there are too few draws, or if the rows do not determine the coefficients.
        replicates: bootstrap replicates, over draws, of the coefficients of the first right-hand side; ``None`` if
            there are too few draws, or if none were requested.
    """

    coefficients: Float[Tensor, "P K"]
    std_error: Float[Tensor, "P K"]
    replicates: Float[Tensor, "R P"] | None = None


def weighted_least_squares(
    design: Float[Tensor, "S P"],
    response: Float[Tensor, "S K"],
    weight: Float[Tensor, " S"],
    *,
    draw: Int[Tensor, " S"] | None = None,
    share: Float[Tensor, " S"] | None = None,
    rank: int | None = None,
    report: Callable[[Float[Tensor, "N P"]], Float[Tensor, "N Q"]] | None = None,
    replicated: bool = True,
) -> Fit:
    """The minimum-norm solution of min Σ w (A x − b)², and sandwich errors over independent draws.

    Each draw (such as a coalition and its complement) counts as one observation. The errors are corrected for the
    degrees of freedom, and scaled by Student's quantile so that ± 1.96 of them cover 95 %. Rows with ``share`` 1 add
    no sampling error, because every alternative was drawn too.

    Args:
        design: A.
        response: b, one column for each output.
        weight: w, above 0.
        draw: rows with the same number were drawn together; ``None`` if each was drawn by itself.
        share: sampling fraction, the share of possible rows that was drawn; ``None`` for a negligible share.
        rank: rank of A, if it is known to be below the number of columns.
        report: linear map from rows of coefficients to the quantities reported; ``None`` for the identity.
        replicated: compute replicates, which take memory if there are many coefficients.
    """
    root = weight.sqrt()[:, None]
    inverse = torch.linalg.pinv(design * root)
    coefficients = inverse @ (response * root)
    residual = response - design @ coefficients
    # Influence of one row on the coefficients: (AᵀWA)⁺ aᵢ wᵢ rᵢ.
    lever = (inverse * root.T).T
    if report is not None:
        coefficients, lever = report(coefficients.T).T, report(lever)
    if share is not None:
        lever = lever * (1 - share).clamp_min(0).sqrt()[:, None]
    numbers = torch.arange(len(design)) if draw is None else draw
    count = int(numbers.max()) + 1
    needed = design.shape[1] if rank is None else rank
    # A draw that repeats another adds no independent residual.
    distinct = count * len(torch.unique(design, dim=0)) // len(design)
    freedom = distinct - needed
    if freedom < 1 or int(torch.linalg.matrix_rank(design)) < min(needed, design.shape[1]):
        sampled = share is None or bool((share < 1).any())
        return Fit(coefficients, torch.full_like(coefficients, torch.nan if sampled else 0.0))
    # Correct for the degrees of freedom, and scale to the width of Student's distribution.
    scale = (distinct / freedom) ** 0.5 * float(stdtrit(freedom, 0.975) / 1.959964)
    variance = torch.zeros_like(coefficients)
    replicates = None
    for k in range(response.shape[1]):
        moves = torch.zeros(count, lever.shape[1], dtype=design.dtype)
        moves.index_add_(0, numbers, lever * residual[:, k : k + 1])
        variance[:, k] = (moves**2).sum(0)
        if k == 0 and replicated:
            replicates = replicates_of(coefficients[:, 0], moves * scale)
    return Fit(coefficients, variance.sqrt() * scale, replicates)

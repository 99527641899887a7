"""Tables of all coalitions, for samplers whose budget allows them, and their Shapley kernel."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, counted
from apportion.protocols.methods import Coalitions

__all__ = ["all_coalitions", "coalitions_of_each_size", "inner_coalitions"]

UNCOUNTABLE = 2**1000
"""A number of coalitions that is not told from larger ones; a float can still hold it."""


def all_coalitions(n_features: int) -> Bool[Tensor, "S F"]:
    """All 2^F coalitions; row r contains feature i if bit i of r is set."""
    numbers = torch.arange(2**n_features)
    return (numbers[:, None] >> torch.arange(n_features)) & 1 == 1


def coalitions_of_each_size(n_features: int) -> list[int]:
    """Number of coalitions of each size, C(n, s) for s = 0, …, n, or 2^1000 where it is larger."""
    rising = [1]
    for size in range(n_features // 2):
        there = rising[-1]
        rising.append(min(UNCOUNTABLE, there if there == UNCOUNTABLE else there * (n_features - size) // (size + 1)))
    return rising + rising[(n_features - 1) // 2 :: -1] if n_features else rising


def inner_coalitions(n_features: int, budget: int) -> Coalitions | None:
    """All coalitions but the empty and the full one, with Shapley kernel weights; ``None`` if the budget is too small.

    Raises:
        BudgetError: the budget is below 2, or there is only one feature.
    """
    if n_features < 2 or budget < 2:
        raise BudgetError(
            f"A pair of coalitions takes 2 features and 2 evaluations; this prompt has "
            f"{counted(n_features, 'feature')}, and the "
            f"budget is {budget}."
        )
    if budget < 2**n_features - 2:
        return None
    inner = all_coalitions(n_features)[1:-1]
    ones = torch.ones(len(inner), dtype=torch.float64)
    return Coalitions(inner, _kernel_weights(inner), torch.arange(len(inner)), ones)


def _kernel_weights(mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
    """The Shapley kernel 1 / (C(n, s) · s · (n − s)) of coalitions that are neither empty nor full."""
    n = mask.shape[1]
    of_size = [0.0, *(1 / (math.comb(n, s) * s * (n - s)) for s in range(1, n)), 0.0]
    return torch.tensor(of_size, dtype=torch.float64)[mask.sum(1)]

"""Coalitions of independent features."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.errors import BudgetError
from apportion.protocols.methods import Coalitions
from apportion_plugins.samplers.tables import all_coalitions

__all__ = ["BernoulliSampler", "bernoulli_rows", "distinct_pairs"]


class BernoulliSampler:
    """Draws each feature independently with probability one half.

    If the budget allows all coalitions, each is returned once. A larger budget with the same seed draws the same
    coalitions and more.
    """

    name = "bernoulli"
    estimands = ("Banzhaf value", "LIME coefficient", "ContextCite coefficient")

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """Draw as many coalitions as the budget allows, with equal weights; rows may repeat.

        Raises:
            BudgetError: the budget is below 1.
        """
        if budget < 1:
            raise BudgetError(f"A coalition takes one evaluation, and the budget is {budget}.")
        if budget >= 2**n_features:
            mask = all_coalitions(n_features)
            ones = torch.ones(len(mask), dtype=torch.float64)
            return Coalitions(mask, ones, torch.arange(len(mask)), ones)
        mask = bernoulli_rows(n_features, budget, rng)
        return Coalitions(mask, torch.ones(budget, dtype=torch.float64), torch.arange(budget))


def bernoulli_rows(n_features: int, count: int, rng: torch.Generator) -> Bool[Tensor, "S F"]:
    """Coalitions of independent features with probability one half; rows may repeat.

    Drawn row by row, so that a larger ``count`` continues the same draws. Captum's Lime draws the same.
    """
    half = torch.full((n_features,), 0.5)
    return torch.stack([torch.bernoulli(half, generator=rng).bool() for _ in range(count)])


def distinct_pairs(n: int, count: int, rng: torch.Generator) -> Bool[Tensor, "P F"]:
    """One coalition of each of ``count`` distinct uniform pairs; a larger ``count`` continues the same draws.

    Args:
        n: number of features.
        count: number of pairs, at most 2^(n−1).
        rng: draws each feature with probability one half.
    """
    half = torch.full((n,), 0.5)
    rows: dict[bytes, Tensor] = {}
    while len(rows) < count:
        row = torch.bernoulli(half, generator=rng).bool()
        # A pair is identified by its coalition that contains the first feature.
        rows.setdefault(bytes((row if row[0] else ~row).tolist()), row)
    return torch.stack(list(rows.values()))

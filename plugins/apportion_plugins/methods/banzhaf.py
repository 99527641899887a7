"""Banzhaf values by regression."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Coalitions, Estimate, Sampler
from apportion_plugins.methods.exact import exact_estimate
from apportion_plugins.methods.regression import Fit, default_budget, require_determined, weighted_least_squares

__all__ = ["Banzhaf", "banzhaf_of_table", "banzhaf_regression"]


class Banzhaf:
    """φᵢ = E[v(S∪i) − v(S)], every other feature in S with probability one half (Banzhaf 1965).

    Found by least squares on coalitions and their complements (Kernel Banzhaf, arXiv 2410.08336), which is exact for
    games without interactions of three or more features once it is determined. All coalitions are asked where the
    budget allows it, and the values are exact.
    """

    estimand = "Banzhaf value"
    requires: frozenset[Capability] = frozenset()

    def run(
        self, game: Game, *, budget: int | None, rng: torch.Generator, sampler: str | Sampler = "bernoulli"
    ) -> Estimate:
        """Estimates for all outputs from one set of coalitions, with sandwich standard errors over pairs.

        Args:
            game: what to ask.
            budget: the most distinct coalitions; ``None`` for 16 times the number of features, and 64 at least.
            rng: draws the coalitions.
            sampler: draws one coalition of each pair; anything but ``"bernoulli"`` estimates something else.

        Raises:
            BudgetError: the budget does not determine the regression: 2F evaluations, or 2^F if that is less.
        """
        n = game.n_features
        budget = default_budget(n) if budget is None else budget
        if 2**n <= budget:
            return exact_estimate(game, banzhaf_of_table)
        require_determined(n, budget)
        assert isinstance(sampler, Sampler), "a name arrives as the sampler itself"
        drawn = sampler.sample(n, budget // 2, rng)
        values = game.values(torch.cat([drawn.mask, ~drawn.mask]))
        fit = banzhaf_regression(drawn, values[: len(drawn.mask)], values[len(drawn.mask) :])
        return Estimate(fit.coefficients, fit.std_error, replicates=fit.replicates)


def banzhaf_regression(drawn: Coalitions, present: Float[Tensor, "S K"], absent: Float[Tensor, "S K"]) -> Fit:
    """Banzhaf values from coalitions and their complements.

    Args:
        drawn: one coalition of each pair, every feature in it with probability one half.
        present: v of the coalitions.
        absent: v of their complements.
    """
    # Of a pair only the difference says anything: the mean of both takes up the constant.
    half = (present - absent) / 2
    return weighted_least_squares(
        drawn.mask.double() - 0.5, half, drawn.weight.double(), draw=drawn.draw, share=drawn.share
    )


def banzhaf_of_table(table: Float[Tensor, "S K"]) -> Float[Tensor, "F K"]:
    """Banzhaf values of a game given by all its values, in the order of ``all_coalitions``."""
    numbers = torch.arange(len(table))
    rows = []
    for i in range(len(table).bit_length() - 1):
        without = numbers[(numbers >> i) & 1 == 0]
        rows.append((table[without | (1 << i)] - table[without]).mean(0))
    return torch.stack(rows) if rows else torch.zeros(0, table.shape[1], dtype=table.dtype)

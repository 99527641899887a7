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
from apportion_plugins.methods.sampled import named_for_sampler

__all__ = ["Banzhaf", "banzhaf_of_table", "banzhaf_regression"]


class Banzhaf:
    """Banzhaf values, φᵢ = E[v(S∪i) − v(S)], with every other feature in S with probability one half (Banzhaf 1965).

    Estimated by least squares on coalitions and their complements (Kernel Banzhaf, arXiv 2410.08336). Once the
    regression is determined, it is exact for games without interactions of three or more features. If the budget
    allows all coalitions, they are all evaluated and the values are exact.
    """

    estimand = "Banzhaf value"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "budget (default max(64, 16 F))"

    def run(
        self, game: Game, *, budget: int | None, rng: torch.Generator, sampler: str | Sampler = "bernoulli"
    ) -> Estimate:
        """Estimate all outputs from one set of coalitions, with sandwich standard errors over pairs.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions; ``None`` for 16 per feature, but at least 64.
            rng: draws the coalitions.
            sampler: draws one coalition of each pair: ``"bernoulli"``, or another that declares Banzhaf values. With
                any other, the values are regression coefficients, and the result says so.

        Raises:
            BudgetError: the budget is below 2F (or 2^F if that is less), so the regression is not determined.
        """
        n = game.n_features
        budget = default_budget(n) if budget is None else budget
        if 2**n <= budget:
            return exact_estimate(game, banzhaf_of_table)
        require_determined(n, budget)
        assert isinstance(sampler, Sampler), "sampler names are resolved before the call"
        drawn = sampler.sample(n, budget // 2, rng)
        values = game.values(torch.cat([drawn.mask, ~drawn.mask]))
        fit = banzhaf_regression(drawn, values[: len(drawn.mask)], values[len(drawn.mask) :])
        estimate = Estimate(fit.coefficients, fit.std_error, replicates=fit.replicates)
        return named_for_sampler(estimate, sampler, self.estimand, coefficient="regression coefficient")


def banzhaf_regression(drawn: Coalitions, present: Float[Tensor, "S K"], absent: Float[Tensor, "S K"]) -> Fit:
    """Banzhaf values from coalitions and their complements.

    Args:
        drawn: one coalition of each pair, with every feature in it with probability one half.
        present: v of the coalitions.
        absent: v of their complements.
    """
    # Only the difference of a pair is informative; its mean is absorbed by the intercept.
    half = (present - absent) / 2
    return weighted_least_squares(
        drawn.mask.double() - 0.5, half, drawn.weight.double(), draw=drawn.draw, share=drawn.share
    )


def banzhaf_of_table(table: Float[Tensor, "S K"]) -> Float[Tensor, "F K"]:
    """Banzhaf values of a game given by its table of values, in the order of ``all_coalitions``."""
    numbers = torch.arange(len(table))
    rows = []
    for i in range(len(table).bit_length() - 1):
        without = numbers[(numbers >> i) & 1 == 0]
        rows.append((table[without | (1 << i)] - table[without]).mean(0))
    return torch.stack(rows) if rows else torch.zeros(0, table.shape[1], dtype=table.dtype)

"""Shapley values by regression."""

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
from apportion_plugins.methods.shapley import shapley_of_table

__all__ = ["KernelShap", "shapley_regression"]


class KernelShap:
    """Shapley values as the solution of a weighted regression on coalitions (Lundberg and Lee 2017).

    A constraint makes the values add up to v(N) − v(∅). Coalitions are paired with their complements, and the default
    sampler is that of Leverage SHAP (arXiv 2410.01917). Once the regression is determined, pairing makes it exact for
    games without interactions of three or more features (arXiv 2601.18608). If the budget allows all coalitions, they
    are all evaluated and the values are exact. ``captum_kernel_shap`` reproduces Captum's numbers.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "budget (default max(64, 16 F))"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        sampler: str | Sampler = "leverage",
    ) -> Estimate:
        """Estimate all outputs from one set of coalitions, with sandwich standard errors over pairs.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions; ``None`` for 16 per feature, but at least 64.
            rng: draws the coalitions.
            sampler: ``"leverage"`` or ``"kernel"``, or another that declares Shapley values. With any other, the values
                are regression coefficients, and the result says so.

        Raises:
            BudgetError: the budget is below 2F (or 2^F if that is less), so the regression is not determined.
        """
        n = game.n_features
        budget = default_budget(n) if budget is None else budget
        if 2**n <= budget:
            return exact_estimate(game, shapley_of_table)
        require_determined(n, budget)
        assert isinstance(sampler, Sampler), "sampler names are resolved before the call"
        drawn = sampler.sample(n, budget - 2, rng)
        ends = torch.tensor([[False] * n, [True] * n])
        values = game.values(torch.cat([ends, drawn.mask]))
        fit = shapley_regression(drawn, values[0], values[1], values[2:])
        estimate = Estimate(fit.coefficients, fit.std_error, replicates=fit.replicates)
        return named_for_sampler(estimate, sampler, self.estimand, coefficient="regression coefficient")


def shapley_regression(
    drawn: Coalitions, empty: Float[Tensor, " K"], full: Float[Tensor, " K"], inner: Float[Tensor, "S K"]
) -> Fit:
    """Shapley values that add up to v(N) − v(∅).

    Args:
        drawn: coalitions between empty and full, weighted for Shapley values.
        empty: v(∅).
        full: v(N).
        inner: v of the coalitions.
    """
    n, delta = drawn.mask.shape[1], full - empty
    # Σφ = Δ: subtracting Δ/n from each value leaves values with sum 0; rows with sum 0 keep it that way.
    size = drawn.mask.sum(1, keepdim=True).double() / n
    design, response = drawn.mask.double() - size, inner - empty - delta * size
    fit = weighted_least_squares(
        design, response, drawn.weight.double(), draw=drawn.draw, share=drawn.share, rank=n - 1
    )
    replicates = None if fit.replicates is None else fit.replicates + delta[0] / n
    return Fit(fit.coefficients + delta / n, fit.std_error, replicates)

"""A sparse local linear model."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, counted
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Coalitions, Estimate, Sampler
from apportion_plugins.methods.sampled import named_for_sampler
from apportion_plugins.methods.sparse import TOLERANCE, check_positive, lasso, refitted

__all__ = ["Lime", "local_lasso"]


class Lime:
    """Coefficients of a Lasso on coalitions, with more weight on those near the full prompt (Ribeiro et al. 2016).

    Captum's Lime with its defaults for text: each feature is present with probability one half, the weights are an
    exponential kernel of the cosine distance to the full prompt, and the solver is scikit-learn's Lasso. The Lasso
    shrinks the coefficients, so they do not estimate Shapley or Banzhaf values. ``captum_lime`` reproduces Captum's
    numbers exactly.
    """

    estimand = "LIME coefficient"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "budget (default max(64, 8 F))"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        sampler: str | Sampler = "bernoulli",
        alpha: float = 0.01,
        kernel_width: float = 1.0,
    ) -> Estimate:
        """Fit one Lasso per output to one set of coalitions; standard errors come from refits on resampled coalitions.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions; ``None`` for 8 per feature, but at least 64.
            rng: draws the coalitions, then the resamples.
            sampler: draws the coalitions; any but ``"bernoulli"`` changes the estimand, and the result says so.
            alpha: penalty of the Lasso; 0.01 shrinks scores in nats only a little.
            kernel_width: width of the exponential kernel.

        Raises:
            InputError: ``alpha`` or ``kernel_width`` is not a positive number.
            BudgetError: the budget is below F + 2 (or 2^F if that is less).
        """
        check_positive(alpha=alpha, kernel_width=kernel_width)
        n = game.n_features
        budget = max(64, 8 * n) if budget is None else budget
        if budget < min(2**n, n + 2):
            raise BudgetError(
                f"A Lasso on {counted(n, 'feature')} takes at least {min(2**n, n + 2)} evaluations, and the budget "
                f"is {budget}. "
                f"Raise it, or use method='ablation' ({n + 1})."
            )
        assert isinstance(sampler, Sampler), "sampler names are resolved before the call"
        estimate = local_lasso(game, sampler.sample(n, budget, rng), rng, alpha=alpha, kernel_width=kernel_width)
        return named_for_sampler(estimate, sampler, self.estimand, coefficient="Lasso coefficient")


def local_lasso(
    game: Game,
    drawn: Coalitions,
    rng: torch.Generator,
    *,
    alpha: float,
    kernel_width: float,
    tolerance: float = TOLERANCE,
) -> Estimate:
    """A Lasso on coalitions weighted by proximity to the full one, and its spread over resampled coalitions.

    Args:
        game: the game to evaluate.
        drawn: the coalitions.
        rng: draws the resamples.
        alpha: penalty of the Lasso.
        kernel_width: width of the exponential kernel.
        tolerance: tolerance at which the Lasso stops.
    """
    weight = drawn.weight.double() * cosine_kernel(drawn.mask, kernel_width)
    values, design = game.values(drawn.mask), drawn.mask.double()
    exact = drawn.share is not None and bool((drawn.share == 1).all())
    found = lasso(design, values, weight, alpha, tolerance)
    if exact:
        return Estimate(found)
    moves = refitted(design, values, weight, alpha, rng, tolerance)
    return Estimate(found, moves.std(0), replicates=found[:, 0] + moves[:, :, 0])


def cosine_kernel(mask: Bool[Tensor, "S F"], width: float) -> Float[Tensor, " S"]:
    """Weights exp(−d² / 2w²), where d is the cosine distance to the full coalition; d = 1 for the empty one.

    Captum's ``get_exp_kernel_similarity_function("cosine")`` uses the same exponent.
    """
    share = mask.double().mean(1)
    distance = 1 - share.sqrt()
    return torch.exp(-(distance**2) / (2 * width**2))

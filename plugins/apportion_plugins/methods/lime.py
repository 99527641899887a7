"""A sparse local linear model."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.backend import Capability
from apportion.errors import BudgetError, InputError
from apportion.game import Game
from apportion.methods import Estimate, Sampler
from apportion_plugins.methods.sparse import lasso, resampled_error

__all__ = ["Lime"]


class Lime:
    """Coefficients of a Lasso on coalitions, those near the full prompt weighing more (Ribeiro et al. 2016).

    Captum's Lime with its text defaults: coalitions with probability one half, an exponential kernel on the cosine
    distance to the full prompt, and scikit-learn's Lasso. The coefficients are shrunk: they do not estimate Shapley or
    Banzhaf values.
    """

    estimand = "LIME coefficient"
    requires: frozenset[Capability] = frozenset()

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
        """One Lasso for each output on one set of coalitions; standard errors from refits on resampled coalitions.

        Args:
            game: what to ask.
            budget: the most distinct coalitions; ``None`` for 8 times the number of features, and 64 at least.
            rng: draws the coalitions, then the resamples.
            sampler: draws the coalitions.
            alpha: of the Lasso; 0.01 shrinks little for scores in nats.
            kernel_width: of the exponential kernel.

        Raises:
            InputError: ``alpha`` or ``kernel_width`` is not a positive number.
            BudgetError: fewer coalitions than features and two more.
        """
        for name, value in (("alpha", alpha), ("kernel_width", kernel_width)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise InputError(f"{name}={value!r} must be a positive number.")
        n = game.n_features
        budget = max(64, 8 * n) if budget is None else budget
        if budget < min(2**n, n + 2):
            raise BudgetError(
                f"A Lasso on {n} features takes at least {min(2**n, n + 2)} evaluations, and the budget is {budget}. "
                f"Raise it, or use method='ablation' ({n + 1})."
            )
        assert isinstance(sampler, Sampler), "a name arrives as the sampler itself"
        drawn = sampler.sample(n, budget, rng)
        weight = drawn.weight.double() * cosine_kernel(drawn.mask, kernel_width)
        values, design = game.values(drawn.mask), drawn.mask.double()
        exact = drawn.share is not None and bool((drawn.share == 1).all())
        error = None if exact else resampled_error(design, values, weight, alpha, rng)
        return Estimate(lasso(design, values, weight, alpha), error)


def cosine_kernel(mask: Bool[Tensor, "S F"], width: float) -> Float[Tensor, " S"]:
    """exp(−d² / 2w²), d the cosine distance of each coalition to the full one, 1 for the empty one.

    Captum's ``get_exp_kernel_similarity_function("cosine")`` has d² / (2w²) as well.
    """
    share = mask.double().mean(1)
    distance = 1 - share.sqrt()
    return torch.exp(-(distance**2) / (2 * width**2))

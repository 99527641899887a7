"""ContextCite: a sparse linear model of the response's log-odds."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import BudgetError, InputError
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate, Sampler
from apportion_plugins.methods.sampled import named_for_sampler
from apportion_plugins.methods.sparse import check_positive, lasso, refitted

__all__ = ["ContextCite"]

DEFAULT_BUDGET = 64
ROUNDING = 1e-6
"""Rounding error by which the log-probability of a certain response may exceed 0."""
LARGEST = -1e-12
"""Log-probabilities are clipped to this maximum, because the log-odds are infinite at 0."""


class ContextCite:
    """Weights of a sparse linear model of the response's log-odds (ContextCite: Cohen-Wang et al., arXiv 2409.00729).

    Each feature is present with probability one half. Let ℓ be the log-probability of a response of T tokens. A Lasso
    on standardised masks is fitted to (ℓ − log(1 − e^ℓ)) / T. The values are its coefficients, rescaled to the
    original masks and multiplied by T. Rows of ``token_values`` are separate fits with T = 1, so they do not add up
    to the values.

    The reference is ``LassoRegression`` of the package context-cite: it gives the same numbers for the same masks, up
    to its solver's looser tolerance. Its draws come from NumPy and are not reproduced here.
    """

    estimand = "ContextCite coefficient"
    requires = frozenset({Capability.LOG_PROBS})
    family, cost = "perturbation", "budget (default 64)"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        sampler: str | Sampler = "bernoulli",
        alpha: float = 0.01,
    ) -> Estimate:
        """Fit one Lasso per output to one set of coalitions; standard errors come from refits on resampled coalitions.

        Args:
            game: the game to evaluate; its values must be log-probabilities (``target_fn="log_prob"``).
            budget: maximum number of distinct coalitions; ``None`` for 64.
            rng: draws the coalitions, then the resamples.
            sampler: draws the coalitions; any but ``"bernoulli"`` changes the estimand, and the result says so.
            alpha: penalty of the Lasso, on log-odds per token.

        Raises:
            InputError: ``alpha`` is not a positive number, or the values are not log-probabilities.
            BudgetError: the budget is below 2.
        """
        check_positive(alpha=alpha)
        budget = DEFAULT_BUDGET if budget is None else budget
        if budget < 2:
            raise BudgetError(f"A regression takes at least 2 evaluations, and the budget is {budget}.")
        assert isinstance(sampler, Sampler), "sampler names are resolved before the call"
        drawn = sampler.sample(game.n_features, budget, rng)
        log_probs = game.values(drawn.mask)
        tokens = torch.ones(game.n_outputs, dtype=torch.float64)
        tokens[0] = max(1, game.n_outputs - 1)
        response = logits(log_probs) / tokens
        weight, scale = drawn.weight.double(), drawn.mask.double().std(0, correction=0)
        # A feature that was always present or always absent has no measurable effect. The Lasso's intercept centres.
        scale = scale.masked_fill(scale == 0, 1.0)
        design, back = drawn.mask.double() / scale, tokens / scale[:, None]
        exact = drawn.share is not None and bool((drawn.share == 1).all())
        values, notes = lasso(design, response, weight, alpha) * back, _notes(log_probs)
        estimate = Estimate(values, notes=notes)
        if not exact:
            moves = refitted(design, response, weight, alpha, rng) * back
            estimate = replace(estimate, std_error=moves.std(0), replicates=values[:, 0] + moves[:, :, 0])
        return named_for_sampler(estimate, sampler, self.estimand, coefficient="Lasso coefficient of the log-odds")


def logits(log_probs: Float[Tensor, "S K"]) -> Float[Tensor, "S K"]:
    """ℓ − log(1 − e^ℓ), the log-odds of each log-probability.

    Raises:
        InputError: a value is above 0, so it is not a log-probability.
    """
    if bool((log_probs > ROUNDING).any()):
        raise InputError(
            f"context_cite explains log-probabilities, but a coalition has the value {float(log_probs.max()):.4g}, "
            "which is above 0. Use target_fn='log_prob', or a method that takes any score, such as 'banzhaf' or 'lime'."
        )
    bounded = log_probs.clamp_max(LARGEST)
    return bounded - torch.log(-torch.expm1(bounded))


def _notes(log_probs: Float[Tensor, "S K"]) -> tuple[str, ...]:
    certain = int((log_probs > LARGEST).any(1).sum())
    if not certain:
        return ()
    return (
        f"the response or one of its tokens is certain for {certain} of {len(log_probs)} coalitions; its log-odds, "
        "which are infinite there, were clipped",
    )

"""ContextCite: a sparse linear model of the logit of the response."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import BudgetError, InputError
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate, Sampler
from apportion_plugins.methods.sparse import check_positive, lasso, refitted

__all__ = ["ContextCite"]

DEFAULT_BUDGET = 64
ROUNDING = 1e-6
"""How far above 0 rounding may put the log-probability of a certain response."""
LARGEST = -1e-12
"""Log-probabilities above it are cut to it: at 0 the logit has no end."""


class ContextCite:
    """Weights of a sparse linear model of the response's logit (ContextCite: Cohen-Wang et al., arXiv 2409.00729).

    Features are there with probability one half. With ℓ the log-probability of the response, T tokens long, a Lasso
    on standardised masks is fitted to (ℓ − log(1 − e^ℓ)) / T; its coefficients, on the scale of the masks and times T,
    are the values. Rows of single tokens are the same for one token (T = 1), and so do not add up to the first one.

    The reference is ``LassoRegression`` of the package context-cite: the same numbers for the same masks, up to its
    solver's looser tolerance. Its draws are NumPy's, and not repeated here.
    """

    estimand = "ContextCite coefficient"
    requires: frozenset[Capability] = frozenset()

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        sampler: str | Sampler = "bernoulli",
        alpha: float = 0.01,
    ) -> Estimate:
        """One Lasso for each output on one set of coalitions; standard errors from refits on resampled coalitions.

        Args:
            game: what to ask; its values must be log-probabilities (``target_fn="log_prob"``).
            budget: the most distinct coalitions; ``None`` for 64.
            rng: draws the coalitions, then the resamples.
            sampler: draws the coalitions.
            alpha: of the Lasso, on logits for each token.

        Raises:
            InputError: ``alpha`` is not a positive number, or the values are no log-probabilities.
            BudgetError: the budget is below 2.
        """
        check_positive(alpha=alpha)
        budget = DEFAULT_BUDGET if budget is None else budget
        if budget < 2:
            raise BudgetError(f"A regression takes at least 2 evaluations, and the budget is {budget}.")
        assert isinstance(sampler, Sampler), "a name arrives as the sampler itself"
        drawn = sampler.sample(game.n_features, budget, rng)
        log_probs = game.values(drawn.mask)
        tokens = torch.ones(game.n_outputs, dtype=torch.float64)
        tokens[0] = max(1, game.n_outputs - 1)
        response = logits(log_probs) / tokens
        weight, scale = drawn.weight.double(), drawn.mask.double().std(0, correction=0)
        # A feature that was always or never there has no effect that could be told. The Lasso's intercept centres.
        scale = scale.masked_fill(scale == 0, 1.0)
        design, back = drawn.mask.double() / scale, tokens / scale[:, None]
        exact = drawn.share is not None and bool((drawn.share == 1).all())
        values, notes = lasso(design, response, weight, alpha) * back, _notes(log_probs)
        if exact:
            return Estimate(values, notes=notes)
        moves = refitted(design, response, weight, alpha, rng) * back
        return Estimate(values, moves.std(0), notes=notes, replicates=values[:, 0] + moves[:, :, 0])


def logits(log_probs: Float[Tensor, "S K"]) -> Float[Tensor, "S K"]:
    """ℓ − log(1 − e^ℓ), the log-odds of each log-probability.

    Raises:
        InputError: a value above 0 is no log-probability.
    """
    if bool((log_probs > ROUNDING).any()):
        raise InputError(
            f"context_cite explains log-probabilities, and a coalition has the value {float(log_probs.max()):.4g}, "
            "which is above 0. Use target_fn='log_prob', or a method that takes any score, such as 'banzhaf' or 'lime'."
        )
    bounded = log_probs.clamp_max(LARGEST)
    return bounded - torch.log(-torch.expm1(bounded))


def _notes(log_probs: Float[Tensor, "S K"]) -> tuple[str, ...]:
    certain = int((log_probs > LARGEST).any(1).sum())
    if not certain:
        return ()
    return (
        f"the response or one of its tokens is certain with {certain} of {len(log_probs)} coalitions; its logit, which "
        "has no end there, was cut",
    )

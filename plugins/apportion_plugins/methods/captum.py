"""Captum's KernelShap and Lime, reproduced: the same draws, weights and solvers give the same numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.errors import BudgetError, counted
from apportion.game.game import Game
from apportion.options import whole_number
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Coalitions, Estimate
from apportion_plugins.methods.lime import local_lasso
from apportion_plugins.methods.regression import weighted_least_squares
from apportion_plugins.methods.sparse import check_positive
from apportion_plugins.samplers.bernoulli import bernoulli_rows

__all__ = ["CaptumKernelShap", "CaptumLime"]

DEFAULT_SAMPLES = 25
MOST_SAMPLES_BY_BUDGET = 10_000
"""Maximum number of draws taken from a large budget; ``n_samples`` may request more."""
END_WEIGHT = 1e6
LASSO_TOLERANCE = 1e-4
"""Default tolerance of scikit-learn's Lasso; Captum's coefficients depend on it."""


class CaptumKernelShap:
    """The values of Captum's KernelShap with the same ``n_samples`` after ``torch.manual_seed(seed)``.

    It estimates Shapley values as ``kernel_shap`` does, but less accurately. Coalitions are not paired with their
    complements. The empty and the full coalition are rows of weight 10⁶ instead of a constraint, so values add up to
    v(N) − v(∅) only approximately. Repeated coalitions count as often as they were drawn, but each is scored once.
    Rows for single tokens and standard errors are additions; Captum has neither.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "budget (default 25 draws)"

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator, n_samples: int | None = None) -> Estimate:
        """Fit the regression for all outputs, with sandwich standard errors.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions.
            rng: draws what Captum draws from PyTorch's generator.
            n_samples: number of coalitions drawn, including repeats and the full and empty ones; ``None`` for the
                budget (10,000 at most), or 25 without one.

        Raises:
            BudgetError: ``n_samples`` coalitions may exceed the budget, or the budget is below 2.
            InputError: ``n_samples`` is not a whole number of at least 2.
        """
        n = game.n_features
        drawn = kernel_draws(n, _sample_count(n_samples, budget, n), rng)
        values, design, weight = game.values(drawn.mask), drawn.mask.double(), drawn.weight
        design = design - weight @ design / weight.sum()
        response = values - weight @ values / weight.sum()
        # The intercept takes one degree of freedom.
        fit = weighted_least_squares(design, response, weight, share=drawn.share, rank=n + 1)
        rank = int(torch.linalg.matrix_rank(design))
        notes = (f"{len(design)} draws do not determine the values of {n} features",) if rank < n else ()
        return Estimate(fit.coefficients, fit.std_error, notes=notes, replicates=fit.replicates)


class CaptumLime:
    """The values of Captum's Lime with the same ``n_samples`` after ``torch.manual_seed(seed)``.

    It differs from ``lime`` in two ways. Coalitions are always drawn with replacement, however few exist, but each is
    scored once. And the Lasso stops at scikit-learn's default tolerance. Rows for single tokens and standard errors
    are additions; Captum has neither.
    """

    estimand = "LIME coefficient"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "budget (default 25 draws)"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        n_samples: int | None = None,
        alpha: float = 0.01,
        kernel_width: float = 1.0,
    ) -> Estimate:
        """Fit one Lasso per output to one set of coalitions; standard errors come from refits on resampled coalitions.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions.
            rng: draws what Captum draws from PyTorch's generator, then the resamples.
            n_samples: number of coalitions drawn, including repeats; ``None`` for the budget (10,000 at most), or 25
                without one.
            alpha: penalty of the Lasso, as in ``SkLearnLasso(alpha=…)``.
            kernel_width: as in ``get_exp_kernel_similarity_function("cosine", kernel_width=…)``.

        Raises:
            BudgetError: ``n_samples`` coalitions may exceed the budget, or the budget is below 2.
            InputError: ``n_samples`` is not a whole number of at least 2, or another option is not positive.
        """
        check_positive(alpha=alpha, kernel_width=kernel_width)
        mask = bernoulli_rows(game.n_features, _sample_count(n_samples, budget, game.n_features), rng)
        drawn = Coalitions(mask, torch.ones(len(mask), dtype=torch.float64))
        return local_lasso(game, drawn, rng, alpha=alpha, kernel_width=kernel_width, tolerance=LASSO_TOLERANCE)


def kernel_draws(n_features: int, count: int, rng: torch.Generator) -> Coalitions:
    """The full and the empty coalition, then coalitions with sizes from the Shapley kernel and uniform members.

    Each draw takes one ``multinomial`` (the size) and one ``randn`` (its largest entries are the members) from
    ``rng``, as Captum's does. With a single feature there is nothing else to draw, and Captum fails.
    """
    rows: list[Tensor] = [torch.ones(n_features, dtype=torch.bool), torch.zeros(n_features, dtype=torch.bool)]
    if n_features > 1:
        sizes = torch.arange(n_features, dtype=torch.float)
        chance = (n_features - 1) / (sizes * (n_features - sizes))
        chance[0] = 0.0
        chance = chance / chance.sum()
        for _ in range(count - 2):
            size = int(torch.multinomial(chance, 1, True, generator=rng))
            normal = torch.randn(n_features, generator=rng)
            rows.append(normal > normal.kthvalue(n_features - size).values)
    mask = torch.stack(rows)
    is_end = torch.arange(len(mask)) < 2
    weight = torch.where(is_end, END_WEIGHT, 1.0).double()
    return Coalitions(mask, weight, share=is_end.double())


def _sample_count(n_samples: int | None, budget: int | None, n_features: int) -> int:
    if n_samples is not None:
        whole_number("n_samples", n_samples, least=2)
    if budget is not None and budget < 2:
        raise BudgetError(f"A regression takes at least 2 evaluations, and the budget is {budget}.")
    if n_samples is None:
        return DEFAULT_SAMPLES if budget is None else min(budget, MOST_SAMPLES_BY_BUDGET)
    distinct = min(n_samples, 2**n_features)
    if budget is not None and distinct > budget:
        raise BudgetError(
            f"n_samples={n_samples} coalitions of {counted(n_features, 'feature')} may be {distinct} distinct "
            f"ones, and the "
            f"budget is {budget}. Raise the budget, or omit one of the two."
        )
    return n_samples

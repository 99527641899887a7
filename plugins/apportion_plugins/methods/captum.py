"""Captum's KernelShap and Lime: its draws, its weights and its solvers, and so its numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from apportion.errors import BudgetError
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
"""A large budget is a limit, not a wish for as many draws; ``n_samples`` may ask for more."""
END_WEIGHT = 1e6
LASSO_TOLERANCE = 1e-4
"""Of scikit-learn's Lasso unless told otherwise; Captum's coefficients are where it stops."""


class CaptumKernelShap:
    """What Captum's KernelShap gives with the same ``n_samples`` after ``torch.manual_seed(seed)``.

    It estimates Shapley values as ``kernel_shap`` does, less accurately: coalitions come without their complements,
    the empty and the full one are rows of weight 10⁶ instead of a constraint, so that values add up to v(N) − v(∅)
    only about, and repeated coalitions count as often as they were drawn (each is scored once). Captum itself gives
    neither the rows of single tokens nor standard errors.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator, n_samples: int | None = None) -> Estimate:
        """The regression for all outputs, with sandwich standard errors.

        Args:
            game: what to ask.
            budget: the most distinct coalitions.
            rng: draws as Captum does from PyTorch's generator.
            n_samples: coalitions drawn, repeats, the full and the empty one included; ``None`` for the budget (10,000
                at most), or 25 without one.

        Raises:
            BudgetError: ``n_samples`` coalitions may be more than the budget, or the budget is below 2.
            InputError: ``n_samples`` is no whole number of at least 2.
        """
        n = game.n_features
        drawn = kernel_draws(n, _sample_count(n_samples, budget, n), rng)
        values, design, weight = game.values(drawn.mask), drawn.mask.double(), drawn.weight
        design = design - weight @ design / weight.sum()
        response = values - weight @ values / weight.sum()
        # The intercept takes a degree of freedom.
        fit = weighted_least_squares(design, response, weight, share=drawn.share, rank=n + 1)
        rank = int(torch.linalg.matrix_rank(design))
        notes = (f"{len(design)} draws do not determine the values of {n} features",) if rank < n else ()
        return Estimate(fit.coefficients, fit.std_error, notes=notes, replicates=fit.replicates)


class CaptumLime:
    """What Captum's Lime gives with the same ``n_samples`` after ``torch.manual_seed(seed)``.

    It differs from ``lime`` in two things: coalitions are drawn with repeats however few there are (each is scored
    once), and the Lasso stops at scikit-learn's own tolerance. Captum itself gives neither the rows of single tokens
    nor standard errors.
    """

    estimand = "LIME coefficient"
    requires: frozenset[Capability] = frozenset()

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
        """One Lasso for each output on one set of coalitions; standard errors from refits on resampled coalitions.

        Args:
            game: what to ask.
            budget: the most distinct coalitions.
            rng: draws as Captum does from PyTorch's generator, then the resamples.
            n_samples: coalitions drawn, repeats included; ``None`` for the budget (10,000 at most), or 25 without one.
            alpha: of the Lasso, as in ``SkLearnLasso(alpha=…)``.
            kernel_width: as in ``get_exp_kernel_similarity_function("cosine", kernel_width=…)``.

        Raises:
            BudgetError: ``n_samples`` coalitions may be more than the budget, or the budget is below 2.
            InputError: ``n_samples`` is no whole number of at least 2, or another option is not a positive number.
        """
        check_positive(alpha=alpha, kernel_width=kernel_width)
        mask = bernoulli_rows(game.n_features, _sample_count(n_samples, budget, game.n_features), rng)
        drawn = Coalitions(mask, torch.ones(len(mask), dtype=torch.float64))
        return local_lasso(game, drawn, rng, alpha=alpha, kernel_width=kernel_width, tolerance=LASSO_TOLERANCE)


def kernel_draws(n_features: int, count: int, rng: torch.Generator) -> Coalitions:
    """The full and the empty coalition, then sizes from the Shapley kernel and members by the largest of normals.

    Each draw takes one ``multinomial`` and one ``randn`` from ``rng``, as Captum's does. With one feature there is
    nothing between the ends (Captum fails there).
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
            f"n_samples={n_samples} coalitions of {n_features} features may be {distinct} distinct ones, and the "
            f"budget is {budget}. Raise the budget, or leave one of the two out."
        )
    return n_samples

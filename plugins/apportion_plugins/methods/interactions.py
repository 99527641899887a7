"""Interactions of pairs of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, InputError, unknown_name
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Coalitions, Estimate
from apportion_plugins.methods.banzhaf import banzhaf_of_table, banzhaf_regression
from apportion_plugins.methods.exact import EXACT
from apportion_plugins.methods.interaction_regression import (
    banzhaf_interactions,
    columns_of,
    pair_design,
    shapley_interactions,
    size_weights,
)
from apportion_plugins.methods.interaction_tables import interactions_of_table
from apportion_plugins.methods.kernel_shap import shapley_regression
from apportion_plugins.methods.regression import Fit
from apportion_plugins.methods.shapley import shapley_of_table
from apportion_plugins.samplers.bernoulli import distinct_pairs
from apportion_plugins.samplers.leverage import leverage_pairs, weighted_for_shapley
from apportion_plugins.samplers.tables import all_coalitions

__all__ = ["Interactions"]

ESTIMANDS: Mapping[str, str] = {"shapley": "Shapley value", "banzhaf": "Banzhaf value"}
INDICES: Mapping[str, str] = {"shapley": "Shapley interaction index", "banzhaf": "Banzhaf interaction index"}
EXACT_FEATURES = 12
"""Without a budget, as many features get exact values: 4096 evaluations."""
MOST_FEATURES = 128
"""Sampled: a regression on 8128 pairs, whose matrix takes a gigabyte."""


class Interactions:
    """Pairs of features: how much more (or less) both together add than each adds alone, and first-order values.

    I_ij is the mean of v(S∪ij) − v(S∪i) − v(S∪j) + v(S) over coalitions S of the others: weighted as in Shapley values
    (Grabisch and Roubens 1999) or all alike (Banzhaf). Positive: together they raise the score by more than the sum of
    what they do alone; negative: they say the same, or one undoes the other. Exact where every coalition fits the
    budget. Else by regression on coalitions and their complements, which is exact for games without interactions of
    three or more features once it is determined, and consistent for any game: KernelSHAP-IQ (arXiv 2405.10852).
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator, index: str = "shapley") -> Estimate:
        """First-order values, and in ``extras`` a symmetric matrix for the whole target and one for each target token.

        The matrices, zero on the diagonal, are ``interactions`` Float[F, F] and ``token_interactions`` Float[T, F, F];
        sampled ones come with ``interactions_std_error`` and ``token_interactions_std_error``. ``interaction_index``
        names what they estimate. Standard errors are sandwich estimates over pairs of coalitions.

        Args:
            game: what to ask.
            budget: the most distinct coalitions; ``None`` for all of up to 12 features, and 4 for each feature and
                pair of features beyond.
            rng: draws the coalitions; a larger budget continues the same draws.
            index: ``"shapley"``: Shapley interaction index, values are Shapley values; ``"banzhaf"``: Banzhaf
                interaction index, values are Banzhaf values.

        Raises:
            UnknownNameError: another index.
            InputError: more than 128 features to sample.
            BudgetError: the budget does not determine the regression: F(F − 1) + 2 evaluations.
        """
        if not isinstance(index, str) or index not in INDICES:
            raise unknown_name("interaction index", str(index), INDICES)
        n = game.n_features
        budget = default_budget(n) if budget is None else budget
        if 2**n <= budget:
            table = game.values(all_coalitions(n))
            return Estimate(
                shapley_of_table(table) if index == "shapley" else banzhaf_of_table(table),
                estimand=ESTIMANDS[index],
                extras={"interaction_index": INDICES[index]} | _matrices(interactions_of_table(table, index), ""),
                notes=(EXACT,),
            )
        half = _drawn(n, budget, rng, index)
        values, pairs = (_shapley if index == "shapley" else _banzhaf)(game, half)
        extras = {"interaction_index": INDICES[index]}
        extras |= _matrices(_symmetric(pairs.coefficients, n), "") | _matrices(
            _symmetric(pairs.std_error, n), "_std_error"
        )
        return Estimate(
            values.coefficients,
            values.std_error,
            ESTIMANDS[index],
            extras,
            _doubts(n, len(half)),
            replicates=values.replicates,
        )


def default_budget(n_features: int) -> int:
    """Evaluations when the user names none."""
    return 2**n_features if n_features <= EXACT_FEATURES else 4 * (n_features + columns_of(n_features))


def _doubts(n: int, pairs: int) -> tuple[str, ...]:
    """What a reader should know of standard errors from little more coalitions than coefficients."""
    if pairs >= 2 * columns_of(n):
        return ()
    return (
        f"standard errors of interactions are too small with fewer than {4 * columns_of(n)} evaluations: "
        "95 % intervals hold the truth in about 85 % of cases, or are unknown",
    )


def _drawn(n: int, budget: int, rng: torch.Generator, index: str) -> Bool[Tensor, "P F"]:
    """One coalition of each pair; together they determine the regression, which is refused else.

    Raises:
        InputError: too many features.
        BudgetError: too small a budget.
    """
    if n > MOST_FEATURES:
        raise InputError(
            f"{n} features have {n * (n - 1) // 2:,} pairs; sampled interactions go up to {MOST_FEATURES} features. "
            "Use fewer features (a coarser `by`, groups, `keep`)."
        )
    least, good = (min(2**n, count) for count in (2 * columns_of(n), 4 * (n + columns_of(n))))
    advice = f"Raise it ({good} for standard errors that mean something), use fewer features, or method='kernel_shap'."
    if budget < least:
        raise BudgetError(
            f"Interactions of {n} features take at least {least} evaluations, and the budget is {budget}. {advice}"
        )
    if index == "banzhaf":
        half = distinct_pairs(n, budget // 2, rng)
    else:
        ends = torch.cat([torch.zeros(1, n, dtype=torch.bool), torch.eye(n, dtype=torch.bool)])
        half = torch.cat([ends, leverage_pairs(n, budget // 2 - n - 1, rng, smallest=2)])
    design = pair_design(half)
    rank = int(torch.linalg.matrix_rank(design.T @ design, hermitian=True))
    if rank < design.shape[1]:
        raise BudgetError(
            f"The coalitions drawn with this seed and a budget of {budget} determine {rank} of {design.shape[1]} "
            f"coefficients. {advice}"
        )
    return half


def _shapley(game: Game, half: Bool[Tensor, "P F"]) -> tuple[Fit, Fit]:
    """Values and interactions of pairs, from coalitions that begin with the empty one and all single features."""
    n = game.n_features
    inner = weighted_for_shapley(half[1:])
    asked = game.values(torch.cat([half[:1], ~half[:1], inner.mask]))
    empty, full, rest = asked[0], asked[1], asked[2:]
    values = shapley_regression(inner, empty, full, rest)
    present, absent = torch.cat([asked[:1], rest[0::2]]), torch.cat([asked[1:2], rest[1::2]])
    assert inner.share is not None, "pairs without repeats"
    share = torch.cat([torch.ones(1, dtype=torch.float64), inner.share[0::2]])
    row_sums = (full - absent[1 : n + 1]) - (present[1 : n + 1] - empty)
    return values, shapley_interactions(half, (present + absent) / 2, size_weights(half), share, row_sums)


def _banzhaf(game: Game, half: Bool[Tensor, "P F"]) -> tuple[Fit, Fit]:
    """Values and interactions of pairs, from coalitions without repeats."""
    count, n = half.shape
    asked = game.values(torch.cat([half, ~half]))
    present, absent = asked[:count], asked[count:]
    weight = torch.ones(count, dtype=torch.float64)
    share = torch.full((count,), count / 2 ** (n - 1), dtype=torch.float64)
    values = banzhaf_regression(Coalitions(half, weight, share=share), present, absent)
    return values, banzhaf_interactions(half, (present + absent) / 2, weight, share)


def _symmetric(pairs: Float[Tensor, "P K"], n: int) -> Float[Tensor, "F F K"]:
    first, second = torch.triu_indices(n, n, offset=1)
    matrix = torch.zeros(n, n, pairs.shape[1], dtype=pairs.dtype)
    matrix[first, second] = pairs
    matrix[second, first] = pairs
    return matrix


def _matrices(matrix: Float[Tensor, "F F K"], suffix: str) -> dict[str, Any]:
    """The whole target's matrix and the tokens', as read-only arrays."""
    found: dict[str, np.ndarray] = {
        f"interactions{suffix}": matrix[:, :, 0].numpy().copy(),
        f"token_interactions{suffix}": matrix[:, :, 1:].permute(2, 0, 1).numpy().copy(),
    }
    for array in found.values():
        array.setflags(write=False)
    return dict(found)

"""Pairwise interactions of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, InputError, counted, unknown_name
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
"""Maximum number of features for exact values without a budget: 4096 evaluations."""
MOST_FEATURES = 128
"""Maximum when sampling: a regression on 8128 pairs, whose matrix takes a gigabyte."""


class Interactions:
    """Pairwise interactions, the effect of two features together beyond what each adds alone, and first-order values.

    I_ij is the mean of v(S∪ij) − v(S∪i) − v(S∪j) + v(S) over coalitions S of the other features, weighted as in
    Shapley values (Grabisch and Roubens 1999) or uniformly (Banzhaf). It is positive if both features together raise
    the score by more than the sum of their separate effects. It is negative if they are redundant, or if one undoes
    the other.

    The values are exact if the budget allows every coalition. Otherwise they come from a regression on coalitions and
    their complements (KernelSHAP-IQ, arXiv 2405.10852). Once this regression is determined, it is exact for games
    without interactions of three or more features. It is consistent for any game.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()
    family, cost = "interactions", "budget (default 2^F up to F = 12)"

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator, index: str = "shapley") -> Estimate:
        """Compute first-order values, and symmetric interaction matrices in ``extras``.

        The matrices, with a zero diagonal, are ``interactions`` Float[F, F] for the whole target and
        ``token_interactions`` Float[T, F, F] for each target token. Sampled ones come with
        ``interactions_std_error`` and ``token_interactions_std_error``, sandwich estimates over pairs of coalitions.
        ``interaction_index`` names the estimand.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions; ``None`` for all coalitions of up to 12 features, and for
                4 per feature and pair of features beyond that.
            rng: draws the coalitions; a larger budget continues the same draws.
            index: ``"shapley"`` for the Shapley interaction index and Shapley values, or ``"banzhaf"`` for the
                Banzhaf interaction index and Banzhaf values.

        Raises:
            UnknownNameError: ``index`` is unknown.
            InputError: there are more than 128 features to sample.
            BudgetError: the budget is below F(F − 1) + 2, so the regression is not determined.
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
                extras={"interaction_index": INDICES[index]} | _matrices(game, interactions_of_table(table, index), ""),
                notes=(EXACT,),
            )
        half = _drawn(n, budget, rng, index)
        values, pairs = (_shapley if index == "shapley" else _banzhaf)(game, half)
        extras = {"interaction_index": INDICES[index]}
        extras |= _matrices(game, _symmetric(pairs.coefficients, n), "")
        extras |= _matrices(game, _symmetric(pairs.std_error, n), "_std_error")
        return Estimate(
            values.coefficients,
            values.std_error,
            ESTIMANDS[index],
            extras,
            _doubts(n, len(half)),
            replicates=values.replicates,
        )


def default_budget(n_features: int) -> int:
    """Number of evaluations if the user sets no budget."""
    return 2**n_features if n_features <= EXACT_FEATURES else 4 * (n_features + columns_of(n_features))


def _doubts(n: int, pairs: int) -> tuple[str, ...]:
    """A note on standard errors if there are few more coalitions than coefficients."""
    if pairs >= 2 * columns_of(n):
        return ()
    return (
        f"standard errors of interactions are too small with fewer than {4 * columns_of(n)} evaluations: "
        "95 % intervals contain the true value in about 85 % of cases, or are unknown",
    )


def _drawn(n: int, budget: int, rng: torch.Generator, index: str) -> Bool[Tensor, "P F"]:
    """One coalition of each pair of a coalition and its complement; together they determine the regression.

    Raises:
        InputError: there are too many features.
        BudgetError: the budget is too small, or the coalitions drawn do not determine the regression.
    """
    if n > MOST_FEATURES:
        raise InputError(
            f"{n} features have {n * (n - 1) // 2:,} pairs; the limit for sampling is {MOST_FEATURES} features. "
            "Use fewer features (a coarser `by`, groups, `keep`)."
        )
    least, good = (min(2**n, count) for count in (2 * columns_of(n), 4 * (n + columns_of(n))))
    advice = f"Raise it ({good} for meaningful standard errors), use fewer features, or use method='kernel_shap'."
    if budget < least:
        raise BudgetError(
            f"Interactions of {counted(n, 'feature')} take at least {least} evaluations, and the budget is "
            f"{budget}. {advice}"
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
            f"The coalitions drawn with this seed and a budget of {budget} determine only {rank} of "
            f"{design.shape[1]} coefficients. {advice}"
        )
    return half


def _shapley(game: Game, half: Bool[Tensor, "P F"]) -> tuple[Fit, Fit]:
    """Values and interactions from coalitions that start with the empty one and all single features."""
    n = game.n_features
    inner = weighted_for_shapley(half[1:])
    asked = game.values(torch.cat([half[:1], ~half[:1], inner.mask]))
    empty, full, rest = asked[0], asked[1], asked[2:]
    values = shapley_regression(inner, empty, full, rest)
    present, absent = torch.cat([asked[:1], rest[0::2]]), torch.cat([asked[1:2], rest[1::2]])
    assert inner.share is not None, "pairs are drawn without replacement"
    share = torch.cat([torch.ones(1, dtype=torch.float64), inner.share[0::2]])
    row_sums = (full - absent[1 : n + 1]) - (present[1 : n + 1] - empty)
    return values, shapley_interactions(half, (present + absent) / 2, size_weights(half), share, row_sums)


def _banzhaf(game: Game, half: Bool[Tensor, "P F"]) -> tuple[Fit, Fit]:
    """Values and interactions from distinct coalitions."""
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


def _matrices(game: Game, matrix: Float[Tensor, "F F K"], suffix: str) -> dict[str, Any]:
    """Matrices of the whole target and of its tokens, as read-only arrays; 0 where a feature cannot affect a token."""
    matrix = torch.where(game.possible[:, None] & game.possible[None], matrix, 0.0)
    found: dict[str, np.ndarray] = {
        f"interactions{suffix}": matrix[:, :, 0].numpy().copy(),
        f"token_interactions{suffix}": matrix[:, :, 1:].permute(2, 0, 1).numpy().copy(),
    }
    for array in found.values():
        array.setflags(write=False)
    return dict(found)

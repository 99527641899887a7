"""Exact Shapley values from a table of all coalitions."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import BudgetError, counted
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate
from apportion_plugins.samplers.tables import all_coalitions

__all__ = ["ExactShapley", "shapley_of_table"]

MAX_FEATURES = 20
"""Limit for a table of all coalitions (about a million); beyond it, values must be sampled."""


class ExactShapley:
    """Exact Shapley values, φᵢ = Σ over S without i of s!(n−s−1)!/n! · (v(S∪i) − v(S)) (Shapley 1953).

    Uses one table of 2ⁿ values, where Captum's ShapleyValues runs n·n! + 1 forward passes for the same numbers.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "2^F evaluations"

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        """Evaluate all 2^F coalitions; fewer evaluations if some of them give the same prompt.

        Raises:
            BudgetError: the budget is below 2^F, or F exceeds 20.
        """
        n = game.n_features
        limit = 2**MAX_FEATURES if budget is None else min(budget, 2**MAX_FEATURES)
        if 2**n > limit:
            allowed = f"the budget is {budget}" if budget is not None else f"the limit is 2^{MAX_FEATURES}"
            total = f" = {2**n:,}" if n < 64 else ""
            raise BudgetError(
                f"Exact Shapley values of {counted(n, 'feature')} take 2^{n}{total} evaluations, and {allowed}. "
                f"{_advice(n)}"
            )
        return Estimate(shapley_of_table(game.values(all_coalitions(n))))


def _advice(n: int) -> str:
    if n <= 2:  # sampled values take as many
        return f"Give budget={2**n} or more."
    exact = f"budget={2**n} or more, " if n <= MAX_FEATURES else ""
    return (
        f"Give {exact}fewer features (a coarser `by`, groups, `keep`), or sample: method='permutation' takes "
        f"budget={2 * n} or more, and method='gp_shap' budget={2 * n + 2} with standard errors."
    )


def shapley_of_table(table: Float[Tensor, "S K"]) -> Float[Tensor, "F K"]:
    """Shapley values of a game given by its table of values, in the order of ``all_coalitions``."""
    n = int(math.log2(len(table)))
    numbers = torch.arange(len(table))
    sizes = ((numbers[:, None] >> torch.arange(n)) & 1).sum(1)
    # The weight of a marginal contribution depends on the size of the coalition without the feature.
    weights = torch.tensor([1 / (n * math.comb(n - 1, s)) for s in range(n)], dtype=table.dtype)
    rows = []
    for i in range(n):
        without = numbers[(numbers >> i) & 1 == 0]
        marginal = table[without | (1 << i)] - table[without]
        rows.append(weights[sizes[without]] @ marginal)
    return torch.stack(rows)

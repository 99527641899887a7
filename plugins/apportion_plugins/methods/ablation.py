"""Leave-one-out."""

from __future__ import annotations

import torch

from apportion.errors import BudgetError, counted
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate

__all__ = ["Ablation"]


class Ablation:
    """Leave-one-out values, φᵢ = v(N) − v(N∖i): the loss of score when feature i alone is absent.

    Captum's FeatureAblation. The values are exact but blind to redundancy: two features that say the same both get 0.
    """

    estimand = "leave-one-out"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "F + 1 evaluations"

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        """Evaluate the full prompt and each prompt that lacks one feature: F + 1 evaluations.

        Raises:
            BudgetError: the budget is smaller.
        """
        n = game.n_features
        if budget is not None and budget < n + 1:
            raise BudgetError(
                f"Leave-one-out of {counted(n, 'feature')} takes {n + 1} evaluations, and the budget is {budget}. "
                f"Raise it to {n + 1}, or use fewer features (a coarser `by`, groups, `keep`)."
            )
        mask = torch.cat([torch.ones(1, n, dtype=torch.bool), ~torch.eye(n, dtype=torch.bool)])
        values = game.values(mask)
        return Estimate(values[0] - values[1:])

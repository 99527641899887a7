"""Leave-one-out."""

from __future__ import annotations

import torch

from apportion.errors import BudgetError
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate

__all__ = ["Ablation"]


class Ablation:
    """φᵢ = v(N) − v(N∖i): what the target loses when feature i alone is absent.

    Captum's FeatureAblation. Exact, and blind to interactions: two features that say the same both get 0.
    """

    estimand = "leave-one-out"
    requires: frozenset[Capability] = frozenset()

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        """F + 1 evaluations.

        Raises:
            BudgetError: the budget is smaller.
        """
        n = game.n_features
        if budget is not None and budget < n + 1:
            raise BudgetError(
                f"Leave-one-out of {n} features takes {n + 1} evaluations, and the budget is {budget}. "
                f"Raise it to {n + 1}, or use fewer features (a coarser `by`, groups, `keep`)."
            )
        mask = torch.cat([torch.ones(1, n, dtype=torch.bool), ~torch.eye(n, dtype=torch.bool)])
        values = game.values(mask)
        return Estimate(values[0] - values[1:])

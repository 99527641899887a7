"""Leave-one-window-out."""

from __future__ import annotations

import torch

from apportion.errors import BudgetError, InputError, counted
from apportion.game.game import Game
from apportion.options import whole_number
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate

__all__ = ["Occlusion"]


class Occlusion:
    """Loss of score when a window of adjacent features is absent (Zeiler and Fergus 2014).

    The value of a feature is the mean over the windows that cover it. With a window of one, it is leave-one-out.
    Adjacent redundant features are removed together, so their effect is visible; leave-one-out gives them 0.
    """

    estimand = "windowed leave-one-out"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "1 evaluation per window, and 1"

    def run(
        self, game: Game, *, budget: int | None, rng: torch.Generator, window: int = 2, stride: int = 1
    ) -> Estimate:
        """Evaluate the full prompt, and the prompt without each window.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions.
            rng: unused, because nothing is drawn.
            window: number of features that are absent together; all of them if there are fewer.
            stride: number of features from one window to the next; the last window ends at the last feature.

        Raises:
            InputError: the window or stride is below 1, or the stride skips features.
            BudgetError: there are more windows than the budget allows.
        """
        for name, value in (("window", window), ("stride", stride)):
            whole_number(name, value, least=1)
        if stride > window:
            raise InputError(f"stride={stride} is larger than window={window}; features in between would get no value.")
        n = game.n_features
        window = min(window, n)
        starts = sorted({*range(0, n - window + 1, stride), n - window})
        if budget is not None and budget < len(starts) + 1:
            raise BudgetError(
                f"Windows of {window} over {counted(n, 'feature')} take {len(starts) + 1} evaluations, and the "
                f"budget is {budget}. Raise it, or use a larger stride or window."
            )
        covered = torch.zeros(len(starts), n, dtype=torch.bool)
        for row, start in enumerate(starts):
            covered[row, start : start + window] = True
        values = game.values(torch.cat([torch.ones(1, n, dtype=torch.bool), ~covered]))
        lost = values[0] - values[1:]
        share = covered.double() / covered.sum(0)
        return Estimate(share.T @ lost)

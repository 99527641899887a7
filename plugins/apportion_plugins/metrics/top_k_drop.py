"""What the highest features are worth together."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.options import whole_number
from apportion.protocols.metrics import Measurement
from apportion_plugins.metrics.ranking import Ranking

__all__ = ["TopKDrop"]


class TopKDrop:
    """v(N) − v(N without the k highest features): ContextCite's top-k log-probability drop.

    Cohen-Wang et al. 2024, arXiv 2409.00729. In the unit of the score; higher is better.
    """

    higher_is_better = True

    def measure(self, game: Game, values: Float[Tensor, " F"], *, rng: torch.Generator, k: int = 1) -> Measurement:
        """2 evaluations.

        Args:
            game: what to ask.
            values: one score for each feature.
            rng: not used; nothing is drawn.
            k: how many features are removed together; all if there are fewer. The paper has 1, 3 and 5.

        Raises:
            InputError: ``k`` is below 1.
        """
        removed = min(whole_number("k", k, least=1), game.n_features)
        scores, _ = Ranking.of(values).scores(game, without=[0, removed])
        return Measurement(float(scores[0] - scores[1]), extras={"features": removed})

"""The top-k drop metric: loss of score without the highest features."""

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
    """Top-k drop, v(N) − v(N without the k highest features) (ContextCite: Cohen-Wang et al. 2024, arXiv 2409.00729).

    In the unit of the score. Higher is better.
    """

    higher_is_better = True

    def measure(self, game: Game, values: Float[Tensor, " F"], *, rng: torch.Generator, k: int = 1) -> Measurement:
        """Measure with two evaluations.

        Args:
            game: scores coalitions.
            values: one score for each feature.
            rng: unused, because nothing is drawn.
            k: number of features to remove; all of them if there are fewer. The paper uses 1, 3 and 5.

        Raises:
            InputError: ``k`` is below 1.
        """
        removed = min(whole_number("k", k, least=1), game.n_features)
        scores, _ = Ranking.of(values).scores(game, without=[0, removed])
        return Measurement(float(scores[0] - scores[1]), extras={"features": removed})

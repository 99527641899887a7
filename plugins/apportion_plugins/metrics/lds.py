"""The linear datamodeling score."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.protocols.metrics import Measurement
from apportion_plugins.metrics.draws import any_coalitions, checked_draws, correlation
from apportion_plugins.metrics.ranking import mean_ranks

__all__ = ["LinearDatamodelingScore"]


class LinearDatamodelingScore:
    """Spearman's rank correlation of v(S) with Σ φᵢ over i in S, for random S.

    ContextCite (Cohen-Wang et al. 2024, arXiv 2409.00729), after Park et al. 2023 (arXiv 2303.14186). Coalitions are
    drawn with each feature present with probability one half, by a generator of the metric's own, so they are not those
    that a sampled method has seen; of few features all coalitions are taken. 1 is a perfect order, 0 none.

    Never rank Shapley values against Banzhaf values by it. Banzhaf values are the best linear prediction for coalitions
    that are drawn with probability one half, so they are favoured by construction. It compares estimators of *one*
    estimand.
    """

    higher_is_better = True

    def measure(self, game: Game, values: Float[Tensor, " F"], *, rng: torch.Generator, masks: int = 64) -> Measurement:
        """As many evaluations as masks.

        Args:
            game: what to ask.
            values: one score for each feature.
            rng: draws the coalitions.
            masks: how many different coalitions to draw, at least 4; all 2^F if there are fewer.

        Raises:
            InputError: ``masks`` is below 4.
        """
        drawn = any_coalitions(game.n_features, checked_draws("masks", masks), rng)
        scores = game.values(drawn.mask)[:, 0]
        predicted = drawn.mask.double() @ values.double()
        rank = correlation(mean_ranks(predicted), mean_ranks(scores))
        count = len(scores)
        # Bonett and Wright (2000), without the part of all coalitions that was drawn.
        error = (1 - rank**2) * math.sqrt((1 + rank**2 / 2) / (count - 3) * drawn.left) if drawn.left else None
        return Measurement(rank, error, {"masks": count, "predicted": predicted.tolist(), "scores": scores.tolist()})

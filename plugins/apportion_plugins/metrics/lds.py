"""The linear datamodeling score."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.protocols.metrics import Measurement
from apportion.results.ranking import rank_correlation
from apportion_plugins.metrics.draws import any_coalitions, checked_draws

__all__ = ["LinearDatamodelingScore"]


class LinearDatamodelingScore:
    """Spearman's rank correlation of v(S) with Σ φᵢ over i in S, for random coalitions S.

    ContextCite (Cohen-Wang et al. 2024, arXiv 2409.00729), after Park et al. 2023 (arXiv 2303.14186). Each feature is
    present with probability one half. The metric has its own generator, so these are not the coalitions on which a
    sampled method was fitted. With few features, all coalitions are used. 1 is a perfect ranking, 0 is no better than
    chance.

    Use it to compare estimators of *one* estimand, never Shapley with Banzhaf values. Banzhaf values are the best
    linear predictor for coalitions drawn with probability one half, so the metric favours them by construction.
    """

    higher_is_better = True

    def measure(self, game: Game, values: Float[Tensor, " F"], *, rng: torch.Generator, masks: int = 64) -> Measurement:
        """Measure with one evaluation per mask.

        Args:
            game: scores coalitions.
            values: one score for each feature.
            rng: draws the coalitions.
            masks: number of distinct coalitions to draw, at least 4; all 2^F if there are fewer.

        Raises:
            InputError: ``masks`` is below 4.
        """
        drawn = any_coalitions(game.n_features, checked_draws("masks", masks), rng)
        scores = game.values(drawn.mask)[:, 0]
        predicted = drawn.mask.double() @ values.double()
        rank = rank_correlation(predicted.numpy(), scores.numpy())
        count = len(scores)
        # Bonett and Wright (2000), with a finite-population correction.
        error = (1 - rank**2) * math.sqrt((1 + rank**2 / 2) / (count - 3) * drawn.left) if drawn.left else None
        return Measurement(rank, error, {"masks": count, "predicted": predicted.tolist(), "scores": scores.tolist()})

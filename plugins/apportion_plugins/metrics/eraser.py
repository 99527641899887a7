"""Comprehensiveness and sufficiency."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.game.game import Game
from apportion.protocols.metrics import Measurement
from apportion_plugins.metrics.ranking import Ranking

__all__ = ["Comprehensiveness", "Sufficiency"]

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


class _TopShares:
    """Mean loss of score over shares of the highest features; subclasses define which features are absent."""

    def measure(
        self, game: Game, values: Float[Tensor, " F"], *, rng: torch.Generator, shares: Sequence[float] = SHARES
    ) -> Measurement:
        """Measure with one evaluation for each distinct number of features, and one for the full prompt.

        Args:
            game: scores coalitions.
            values: one score for each feature.
            rng: unused, because nothing is drawn.
            shares: shares of the features, each above 0 and at most 1; rounded half up to whole features, at least one.

        Raises:
            InputError: a share is out of range.
        """
        counts = _counts(shares, game.n_features)
        lost = self._lost(game, Ranking.of(values), counts)
        extras = {"shares": list(shares), "features": counts, "losses": lost.tolist()}
        return Measurement(float(lost.mean()), extras=extras)

    def _lost(self, game: Game, ranking: Ranking, counts: Sequence[int]) -> Float[Tensor, " C"]:
        raise NotImplementedError


class Comprehensiveness(_TopShares):
    """Loss of score without the highest features (ERASER, DeYoung et al. 2020, arXiv 1911.03429).

    The mean of v(N) − v(N without the top) over the top 1, 5, 10, 20 and 50 % of features, the paper's area over the
    perturbation curve. In the unit of the score, where the paper uses probabilities. Higher is better.
    """

    higher_is_better = True

    def _lost(self, game: Game, ranking: Ranking, counts: Sequence[int]) -> Float[Tensor, " C"]:
        scores, _ = ranking.scores(game, without=[0, *counts])
        return scores[0] - scores[1:]


class Sufficiency(_TopShares):
    """Loss of score with the highest features alone (ERASER, DeYoung et al. 2020, arXiv 1911.03429).

    The mean of v(N) − v(the top alone) over the top 1, 5, 10, 20 and 50 % of features, in the unit of the score. Lower
    is better; below 0, the top alone raises the score more than the whole prompt does.
    """

    higher_is_better = False

    def _lost(self, game: Game, ranking: Ranking, counts: Sequence[int]) -> Float[Tensor, " C"]:
        full, scores = ranking.scores(game, without=[0], only=counts)
        return full - scores


def _counts(shares: object, n_features: int) -> list[int]:
    """Number of features for each share."""
    if isinstance(shares, str) or not isinstance(shares, Sequence) or not shares:
        raise InputError(f"shares={shares!r:.80} must be a list of numbers such as {list(SHARES)}.")
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InputError(f"shares has {share!r}; each must be above 0 and at most 1, such as 0.2 for 20 %.")
    return [max(1, math.floor(share * n_features + 0.5)) for share in shares]

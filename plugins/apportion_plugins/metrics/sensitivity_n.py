"""The sensitivity-n metric."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.game.game import Game
from apportion.protocols.metrics import Measurement
from apportion_plugins.metrics.draws import Drawn, checked_draws, coalitions_of_size, correlation

__all__ = ["SensitivityN"]

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)


class SensitivityN:
    """Correlation of the values of n removed features with the loss of score (Ancona et al. 2018, arXiv 1711.06104).

    Pearson's correlation of Σ φᵢ over i in R with v(N) − v(N without R), over random sets R of n features; by default
    its mean over n = 10, 30, 50, 70 and 90 % of the features. 1 is a perfect prediction, 0 no correlation. If all
    sums or all losses are equal, as for n = F, the correlation is defined as 0.
    """

    higher_is_better = True

    def measure(
        self,
        game: Game,
        values: Float[Tensor, " F"],
        *,
        rng: torch.Generator,
        n: int | float | None = None,
        draws: int = 32,
    ) -> Measurement:
        """Measure with one evaluation per draw, for each number of features.

        Args:
            game: scores coalitions.
            values: one score for each feature.
            rng: draws the sets.
            n: number of features to remove, or (below 1) the share of them; ``None`` for the mean over five shares.
                Shares are rounded half up to whole features, at least one and at most all but one.
            draws: number of distinct sets of each size to draw, at least 4; all sets of a size if there are fewer.

        Raises:
            InputError: ``n`` is neither a number of features nor a share, or ``draws`` is below 4.
        """
        sizes = _sizes(n, game.n_features)
        count = checked_draws("draws", draws)
        drawn = [coalitions_of_size(game.n_features, size, count, rng) for size in sizes]
        removed = torch.cat([part.mask for part in drawn])
        scores = game.values(~removed)[:, 0]
        lengths = [len(part.mask) for part in drawn]
        predicted = torch.split(removed.double() @ values.double(), lengths)
        # v(N) is constant, so the correlation with the loss is that with the score, with the sign reversed.
        left = torch.split(scores, lengths)
        found = [correlation(p, -actual) for p, actual in zip(predicted, left, strict=True)]
        variances = [_variance(r, part) for r, part in zip(found, drawn, strict=True)]
        error = math.sqrt(sum(variances)) / len(sizes) if any(part.left for part in drawn) else None
        return Measurement(sum(found) / len(found), error, {"sizes": sizes, "correlations": found})


def _variance(r: float, drawn: Drawn) -> float:
    """The variance of a correlation over drawn sets; 0 if all sets were drawn."""
    return (1 - r**2) ** 2 / (len(drawn.mask) - 3) * drawn.left if drawn.left else 0.0


def _sizes(n: object, n_features: int) -> list[int]:
    """Numbers of features to remove."""
    if n is None:
        return sorted({_share(share, n_features) for share in SHARES})
    if not isinstance(n, bool) and isinstance(n, int | float):
        if 0 < n < 1:
            return [_share(n, n_features)]
        if 1 <= n <= n_features and n == int(n):
            return [int(n)]
    raise InputError(f"n={n!r} must be a number of features from 1 to {n_features}, a share below 1, or None.")


def _share(share: float, n_features: int) -> int:
    return min(max(1, math.floor(share * n_features + 0.5)), max(1, n_features - 1))

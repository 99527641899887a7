"""Sensitivity-n."""

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
    """Correlation of the values of n removed features with what the target loses (Ancona et al. 2018).

    arXiv 1711.06104. For a number n, Pearson's correlation of Σ φᵢ over i in R with v(N) − v(N without R) over random
    sets R of n features; by default its mean over n = 10, 30, 50, 70 and 90 % of the features. 1 is a perfect
    prediction, 0 none. A number whose sums or losses are all the same, as for n = F, counts as 0.
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
        """As many evaluations as draws for each number of features.

        Args:
            game: what to ask.
            values: one score for each feature.
            rng: draws the sets.
            n: how many features are removed, or (below 1) which share of them; ``None`` for the mean over five shares.
                Shares are rounded to whole features, halves up, at least one and at most all but one.
            draws: how many different sets of each size to draw, at least 4; all sets of a size if there are fewer.

        Raises:
            InputError: an ``n`` that is neither a number of features nor a share, or ``draws`` below 4.
        """
        sizes = _sizes(n, game.n_features)
        count = checked_draws("draws", draws)
        drawn = [coalitions_of_size(game.n_features, size, count, rng) for size in sizes]
        removed = torch.cat([part.mask for part in drawn])
        scores = game.values(~removed)[:, 0]
        lengths = [len(part.mask) for part in drawn]
        predicted = torch.split(removed.double() @ values.double(), lengths)
        # v(N) is the same in all of them, so what is lost correlates like what is left, with the sign reversed.
        left = torch.split(scores, lengths)
        found = [correlation(p, -actual) for p, actual in zip(predicted, left, strict=True)]
        variances = [_variance(r, part) for r, part in zip(found, drawn, strict=True)]
        error = math.sqrt(sum(variances)) / len(sizes) if any(part.left for part in drawn) else None
        return Measurement(sum(found) / len(found), error, {"sizes": sizes, "correlations": found})


def _variance(r: float, drawn: Drawn) -> float:
    """Of a correlation over some of all sets there are; 0 over all of them."""
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

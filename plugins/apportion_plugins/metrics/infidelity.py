"""The infidelity metric."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.protocols.metrics import Measurement
from apportion_plugins.metrics.draws import any_coalitions, checked_draws

__all__ = ["Infidelity"]


class Infidelity:
    """Mean squared error of losses predicted from the values of removed features (Yeh et al. 2019, arXiv 1901.09392).

    The mean of (Σ φᵢ over i in R − (v(N) − v(N without R)))² over random sets R, which contain each feature with
    probability one half: the paper's definition with removal as the perturbation. In the unit of the score, squared.
    Lower is better, and 0 is exact. It depends on magnitudes: doubling the values makes a good attribution a bad one.

    ``scaled`` in the extras is the error after multiplying the values by ``scale``, the best single factor (Captum's
    ``normalize=True``), for methods whose values have no unit, such as gradients.
    """

    higher_is_better = False

    def measure(self, game: Game, values: Float[Tensor, " F"], *, rng: torch.Generator, draws: int = 64) -> Measurement:
        """Measure with one evaluation per draw, and one for the full prompt.

        Args:
            game: scores coalitions.
            values: one score for each feature.
            rng: draws the sets.
            draws: number of distinct sets to draw, at least 4; all 2^F if there are fewer.

        Raises:
            InputError: ``draws`` is below 4.
        """
        drawn = any_coalitions(game.n_features, checked_draws("draws", draws), rng)
        full = torch.ones(1, game.n_features, dtype=torch.bool)
        scores = game.values(torch.cat([full, drawn.mask]))[:, 0]
        lost = scores[0] - scores[1:]
        predicted = (~drawn.mask).double() @ values.double()
        errors = (predicted - lost) ** 2
        power = float(predicted @ predicted)
        scale = float(predicted @ lost) / power if power > 0 else 0.0
        scaled = float(((scale * predicted - lost) ** 2).mean())
        extras = {"draws": len(lost), "scale": scale, "scaled": scaled}
        return Measurement(float(errors.mean()), drawn.mean_error(errors), extras)

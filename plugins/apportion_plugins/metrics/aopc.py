"""Area over the perturbation curve."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.game.game import Game
from apportion.options import whole_number
from apportion.protocols.metrics import Measurement
from apportion_plugins.metrics.ranking import Ranking

__all__ = ["Aopc"]

ORDERS = ("most", "least", "difference")


class Aopc:
    """Area over the perturbation curve of the first features (Samek et al. 2017, arXiv 1509.06321).

    The mean over k = 1 … L of v(N) − v(N without the k highest). The paper's mean includes k = 0, whose term is 0, so
    it is L/(L + 1) times this one. ``deletion`` measures the whole curve, this metric only its beginning.
    """

    higher_is_better = True

    def measure(
        self,
        game: Game,
        values: Float[Tensor, " F"],
        *,
        rng: torch.Generator,
        steps: int = 10,
        order: str = "most",
    ) -> Measurement:
        """Measure with L + 1 evaluations, or 2L + 1 for ``order="difference"``.

        Args:
            game: scores coalitions.
            values: one score for each feature.
            rng: unused, because nothing is drawn.
            steps: L, the number of features to remove one after another; all of them if there are fewer.
            order: ``"most"`` removes the highest first. ``"least"`` removes the lowest first and measures
                v(N without them) − v(N), so that higher is better here too. ``"difference"`` is the sum of the two:
                it shows how much more the highest matter than the lowest.

        Raises:
            InputError: ``steps`` is below 1, or ``order`` is unknown.
        """
        if order not in ORDERS:
            raise InputError(f"order={order!r} must be one of {', '.join(map(repr, ORDERS))}.")
        n = game.n_features
        taken = range(1, min(whole_number("steps", steps, least=1), n) + 1)
        most = taken if order != "least" else ()
        least = [n - k for k in taken] if order != "most" else ()
        without, kept = Ranking.of(values).scores(game, without=[0, *most], only=least)
        lost = [(without[0] - without[1:]).tolist(), (kept - without[0]).tolist()]
        mean = sum(sum(losses) / len(taken) for losses in lost)
        names = ("lost_without_highest", "kept_without_lowest")
        return Measurement(mean, extras={name: part for name, part in zip(names, lost, strict=True) if part})

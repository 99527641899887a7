"""What sampled methods do when nothing has to be sampled."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.protocols.methods import Estimate
from apportion_plugins.samplers.tables import all_coalitions

__all__ = ["EXACT", "exact_estimate"]

EXACT = "every coalition fitted the budget, so the values are exact"


def exact_estimate(game: Game, values_of: Callable[[Float[Tensor, "S K"]], Float[Tensor, "F K"]]) -> Estimate:
    """The values of the whole game, and a note that says so.

    Args:
        game: asked for all its 2^F coalitions.
        values_of: from the table of them, in the order of ``all_coalitions``.
    """
    return Estimate(values_of(game.values(all_coalitions(game.n_features))), notes=(EXACT,))

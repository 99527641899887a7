"""Exact values, for sampled methods whose budget allows all coalitions."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.protocols.methods import Estimate
from apportion_plugins.samplers.tables import all_coalitions

__all__ = ["EXACT", "exact_estimate"]

EXACT = "the budget covered every coalition, so the values are exact"


def exact_estimate(game: Game, values_of: Callable[[Float[Tensor, "S K"]], Float[Tensor, "F K"]]) -> Estimate:
    """Exact values from all 2^F coalitions, with a note that says so.

    Args:
        game: the game to evaluate.
        values_of: computes the values from the table of all coalitions, in the order of ``all_coalitions``.
    """
    return Estimate(values_of(game.values(all_coalitions(game.n_features))), notes=(EXACT,))

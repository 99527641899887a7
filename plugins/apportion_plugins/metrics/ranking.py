"""Rankings of features by value, and scores along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.game.game import Game
from apportion.results.ranking import tie_groups

__all__ = ["Ranking"]


@dataclass(frozen=True)
class Ranking:
    """Features ranked by value, highest first; features of equal value are tied.

    Tied features are removed (or added) together. If a number of features splits a group of ties, the score is
    interpolated linearly between none and all of the group. This equals the mean over their orders if they do not
    interact. Results therefore do not depend on the order in which features are listed, and values that are all equal
    give a straight line.

    Attributes:
        order: indices of features, highest first.
        edges: numbers of features, from 0 to F, that do not split a group of ties.
    """

    order: Int[Tensor, " F"]
    edges: Int[Tensor, " E"]

    @classmethod
    def of(cls, values: Float[Tensor, " F"]) -> Ranking:
        """Rank features by these values."""
        order, group = map(torch.from_numpy, tie_groups(-values.double().numpy()))
        starts = torch.nonzero(group.diff()).flatten() + 1
        return cls(order, torch.cat([torch.tensor([0]), starts, torch.tensor([len(order)])]))

    def scores(
        self, game: Game, *, without: Sequence[int] = (), only: Sequence[int] = ()
    ) -> tuple[Float[Tensor, " W"], Float[Tensor, " O"]]:
        """Score the whole target without the highest features, and with only those, in one call to the game.

        Args:
            game: scores coalitions.
            without: numbers of highest features to remove, each from 0 to F.
            only: numbers of highest features to keep, without any others.
        """
        counts = torch.tensor([*without, *only])
        low = torch.searchsorted(self.edges, counts, right=True) - 1
        high = torch.searchsorted(self.edges, counts)
        start, end = self.edges[low], self.edges[high]
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(self.order))
        highest = place < torch.cat([start, end])[:, None]
        absent = torch.arange(len(counts)) < len(without)
        asked = highest ^ absent.repeat(2)[:, None]
        at_start, at_end = game.values(asked)[:, 0].chunk(2)
        share = (counts - start).double() / (end - start).clamp_min(1)
        # Not start + share·(end − start), which would add rounding errors where no group is split.
        found = torch.where(share == 0, at_start, (1 - share) * at_start + share * at_end)
        return found[: len(without)], found[len(without) :]

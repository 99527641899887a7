"""Coalitions along random orders of the features."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from apportion.errors import BudgetError
from apportion.methods import Coalitions

__all__ = ["PermutationSampler", "chain", "random_orders"]


def random_orders(n_features: int, count: int, rng: torch.Generator, *, antithetic: bool) -> Int[Tensor, "C F"]:
    """Random orders of the features, each followed by its reverse when ``antithetic``.

    Draws ``torch.randperm`` from ``rng`` and nothing else, as Captum's ShapleyValueSampling does.
    """
    orders: list[Tensor] = []
    while len(orders) < count:
        order = torch.randperm(n_features, generator=rng)
        orders += [order, order.flip(0)] if antithetic else [order]
    return torch.stack(orders)[:count]


def chain(order: Int[Tensor, " F"]) -> Bool[Tensor, "F+1 F"]:
    """The coalitions along one order: nothing, the first feature, the first two, … all."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return rank[None, :] < torch.arange(len(order) + 1)[:, None]


class PermutationSampler:
    """Distinct coalitions along antithetic pairs of random orders, equal weights."""

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """As many whole chains as fit into ``budget`` distinct coalitions.

        Raises:
            BudgetError: not even one pair of orders fits.
        """
        seen: dict[tuple[bool, ...], None] = {}
        for _ in range(max(1, budget)):
            pair = random_orders(n_features, 2, rng, antithetic=True)
            rows = [tuple(row) for order in pair for row in chain(order).tolist()]
            grown = seen | dict.fromkeys(rows)
            if len(grown) > budget:
                break
            seen = grown
        if not seen:
            raise BudgetError(
                f"One pair of orders of {n_features} features visits {2 * n_features} coalitions, and the budget is "
                f"{budget}. Raise it, or use fewer features."
            )
        mask = torch.tensor(list(seen), dtype=torch.bool)
        return Coalitions(mask, torch.ones(len(mask), dtype=torch.float64))

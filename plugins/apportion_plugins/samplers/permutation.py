"""Coalitions along random orders of the features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from apportion.errors import BudgetError, counted
from apportion.protocols.methods import Coalitions

__all__ = ["Orders", "PermutationSampler", "chain", "orders_within_budget", "random_orders"]


@dataclass(frozen=True, slots=True)
class Orders:
    """Random orders, and the distinct coalitions that they visit.

    Attributes:
        orders: one order per row, each followed by its reverse if ``antithetic``.
        coalitions: the coalitions, in the order of their first visit.
    """

    orders: Int[Tensor, "C F"]
    coalitions: Bool[Tensor, "S F"]


def random_orders(n_features: int, count: int, rng: torch.Generator, *, antithetic: bool) -> Int[Tensor, "C F"]:
    """Random orders of the features, each followed by its reverse if ``antithetic``.

    Only ``torch.randperm`` is drawn from ``rng``, as in Captum's ShapleyValueSampling.
    """
    orders: list[Tensor] = []
    while len(orders) < count:
        order = torch.randperm(n_features, generator=rng)
        orders += [order, order.flip(0)] if antithetic else [order]
    return torch.stack(orders)[:count]


def chain(order: Int[Tensor, " F"]) -> Bool[Tensor, "F+1 F"]:
    """The coalitions along one order: no feature, the first, the first two, …, all."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return rank[None, :] < torch.arange(len(order) + 1)[:, None]


def orders_within_budget(
    n_features: int, budget: int, rng: torch.Generator, *, antithetic: bool, most: int | None = None
) -> Orders:
    """Draw as many complete orders (or pairs) as visit at most ``budget`` distinct coalitions.

    Drawing stops at the first order that does not fit, or when every coalition has been visited. Neither depends on
    the game, so estimates from these orders are unbiased.

    Args:
        n_features: number of features F.
        budget: maximum number of distinct coalitions.
        rng: draws the orders.
        antithetic: draw pairs of an order and its reverse.
        most: maximum number of orders; ``None`` for as many as fit.

    Raises:
        BudgetError: not even one order (or pair) fits.
    """
    step = 2 if antithetic else 1
    _check_budget(n_features, budget, step)
    seen: dict[bytes, None] = {}
    orders: list[Tensor] = []
    while (most is None or len(orders) < most) and len(seen) < 2**n_features:
        drawn = random_orders(n_features, step, rng, antithetic=antithetic)
        visited = [bytes(row) for order in drawn for row in chain(order).to(torch.uint8).tolist()]
        new = dict.fromkeys(row for row in visited if row not in seen)
        if len(seen) + len(new) > budget:
            break
        seen |= new
        orders.extend(drawn)
    return Orders(torch.stack(orders), torch.tensor([list(row) for row in seen], dtype=torch.bool))


def _check_budget(n_features: int, budget: int, step: int) -> None:
    """Refuse a budget before an order is drawn: the coalitions along it take F² entries."""
    least = min(2**n_features, step * (n_features - 1) + 2)
    if budget < least:
        raise BudgetError(
            f"{'A pair of orders' if step > 1 else 'One order'} of {counted(n_features, 'feature')} visits {least} "
            f"coalitions, "
            f"and the budget is {budget}. Raise it to {least} or more ({2 * step * (n_features - 1) + 2} for standard "
            f"errors), or use method='ablation' ({n_features + 1})."
        )


class PermutationSampler:
    """Draws distinct coalitions along antithetic pairs of random orders, with equal weights."""

    name = "permutation"

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """Draw as many pairs of orders as fit into ``budget``, and return their coalitions.

        Raises:
            BudgetError: not even one pair of orders fits.
        """
        mask = orders_within_budget(n_features, budget, rng, antithetic=True).coalitions
        return Coalitions(mask, torch.ones(len(mask), dtype=torch.float64))

"""Coalitions by leverage scores: every size equally often, without replacement."""

from __future__ import annotations

import heapq

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.protocols.methods import Coalitions
from apportion_plugins.samplers.tables import coalitions_of_each_size, inner_coalitions

__all__ = ["LeverageSampler", "leverage_pairs", "weighted_for_shapley"]


class LeverageSampler:
    """Draws pairs of a coalition and its complement without replacement, all sizes equally often.

    Leverage SHAP (arXiv 2410.01917): in the regression for Shapley values, the leverage of a coalition depends only on
    its size, and all sizes have the same total leverage. So sizes take turns, small ones until all their coalitions
    are drawn. A larger budget with the same seed draws the same pairs and more.
    """

    name = "leverage"
    estimands = ("Shapley value",)

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """Draw coalitions other than the empty and the full one, with weights for Shapley values.

        Raises:
            BudgetError: the budget is below 2, or there is only one feature.
        """
        everything = inner_coalitions(n_features, budget)
        if everything is not None:
            return everything
        return weighted_for_shapley(leverage_pairs(n_features, budget // 2, rng))


def weighted_for_shapley(half: Bool[Tensor, "P F"]) -> Coalitions:
    """Coalitions of distinct pairs, uniform within each size, with their weights for Shapley values.

    Args:
        half: one coalition of each pair; in the result, its complement follows it.
    """
    n = half.shape[1]
    mask = torch.stack([half, ~half], 1).flatten(0, 1)
    sizes = mask.sum(1)
    drawn = torch.bincount(sizes, minlength=n + 1).double()[sizes]
    there = torch.tensor(coalitions_of_each_size(n), dtype=torch.float64)[sizes]
    weight = 1 / (sizes * (n - sizes) * drawn)
    return Coalitions(mask, weight, torch.arange(len(half)).repeat_interleave(2), drawn / there)


def leverage_pairs(n: int, count: int, rng: torch.Generator, *, smallest: int = 1) -> Bool[Tensor, "P F"]:
    """One coalition of each pair. The sizes follow a fixed sequence.

    Args:
        n: number of features.
        count: number of pairs, at most as many as exist.
        rng: draws the members.
        smallest: size of the smallest coalitions to draw; complements have at most n − ``smallest`` features.
    """
    turn = _SizesInTurn(n, smallest)
    seen: set[bytes] = set()
    rows: list[Tensor] = []
    while len(rows) < count:
        size = turn.next()
        while True:
            row = torch.zeros(n, dtype=torch.bool)
            row[torch.randperm(n, generator=rng)[:size]] = True
            # Both coalitions of a middle-sized pair have the same size; the key must be the same.
            other = ~row if 2 * size == n and not row[0] else row
            key = bytes(other.tolist())
            if key not in seen:
                break
        seen.add(key)
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros(0, n, dtype=torch.bool)


class _SizesInTurn:
    """Sizes up to n/2 in equal proportion (Sainte-Laguë method), each until its pairs are used up.

    A pair has one coalition of size s and one of size n − s; a middle-sized pair has two of the same size.
    """

    def __init__(self, n: int, smallest: int) -> None:
        self._queue: list[tuple[float, int]] = []
        self._count = dict.fromkeys(range(smallest, n // 2 + 1), 0)
        there = coalitions_of_each_size(n)
        self._most = {s: there[s] // (2 if 2 * s == n else 1) for s in self._count}
        self._need = {s: 2.0 if 2 * s == n else 1.0 for s in self._count}
        for size in self._count:
            heapq.heappush(self._queue, (self._need[size], size))

    def next(self) -> int:
        """Return the size of the smaller coalition of the next pair."""
        _, size = heapq.heappop(self._queue)
        self._count[size] += 1
        if self._count[size] < self._most[size]:
            heapq.heappush(self._queue, (self._need[size] * (2 * self._count[size] + 1), size))
        return size

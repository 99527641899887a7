"""Coalitions by leverage scores: every size as often as every other, without repeats."""

from __future__ import annotations

import heapq
import math

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.protocols.methods import Coalitions
from apportion_plugins.samplers.tables import inner_coalitions

__all__ = ["LeverageSampler", "leverage_pairs", "weighted_for_shapley"]


class LeverageSampler:
    """Pairs of a coalition and its complement, without replacement, all sizes alike (Leverage SHAP, arXiv 2410.01917).

    In the regression that Shapley values solve, the leverage of a coalition depends on its size alone, and summed over
    each size it is the same. So sizes are served in turn, small ones until all their coalitions are drawn. A larger
    budget with the same seed draws the same pairs and more.
    """

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """Coalitions that are neither empty nor full, weights for Shapley values.

        Raises:
            BudgetError: the budget is below 2, or there is nothing between empty and full.
        """
        everything = inner_coalitions(n_features, budget)
        if everything is not None:
            return everything
        return weighted_for_shapley(leverage_pairs(n_features, budget // 2, rng))


def weighted_for_shapley(half: Bool[Tensor, "P F"]) -> Coalitions:
    """Pairs, drawn without repeats and uniformly within each size, with their weights for Shapley values.

    Args:
        half: one coalition of each pair; its complement follows it in the result.
    """
    n = half.shape[1]
    mask = torch.stack([half, ~half], 1).flatten(0, 1)
    sizes = mask.sum(1)
    drawn = torch.bincount(sizes, minlength=n + 1).double()[sizes]
    there = torch.tensor([math.comb(n, s) for s in range(n + 1)], dtype=torch.float64)[sizes]
    weight = 1 / (sizes * (n - sizes) * drawn)
    return Coalitions(mask, weight, torch.arange(len(half)).repeat_interleave(2), drawn / there)


def leverage_pairs(n: int, count: int, rng: torch.Generator, *, smallest: int = 1) -> Bool[Tensor, "P F"]:
    """One coalition of each pair. Which size comes next depends on nothing but how many came before.

    Args:
        n: features.
        count: pairs, no more than there are.
        rng: draws them.
        smallest: size of the smallest coalitions to draw; those of n features less follow as complements.
    """
    turn = _SizesInTurn(n, smallest)
    seen: set[bytes] = set()
    rows: list[Tensor] = []
    while len(rows) < count:
        size = turn.next()
        while True:
            row = torch.zeros(n, dtype=torch.bool)
            row[torch.randperm(n, generator=rng)[:size]] = True
            # Of a pair of the middle size either may stand for both.
            other = ~row if 2 * size == n and not row[0] else row
            key = bytes(other.tolist())
            if key not in seen:
                break
        seen.add(key)
        rows.append(row)
    return torch.stack(rows) if rows else torch.zeros(0, n, dtype=torch.bool)


class _SizesInTurn:
    """Sizes up to n/2 in proportion (Sainte-Laguë), each until its pairs are used up.

    A pair of sizes s and n − s gives each of them a coalition; a pair of the middle size gives it two.
    """

    def __init__(self, n: int, smallest: int) -> None:
        self._queue: list[tuple[float, int]] = []
        self._count = dict.fromkeys(range(smallest, n // 2 + 1), 0)
        self._most = {s: math.comb(n, s) // (2 if 2 * s == n else 1) for s in self._count}
        self._need = {s: 2.0 if 2 * s == n else 1.0 for s in self._count}
        for size in self._count:
            heapq.heappush(self._queue, (self._need[size], size))

    def next(self) -> int:
        """The size of the next pair's smaller coalition."""
        _, size = heapq.heappop(self._queue)
        self._count[size] += 1
        if self._count[size] < self._most[size]:
            heapq.heappush(self._queue, (self._need[size] * (2 * self._count[size] + 1), size))
        return size

"""Games with known answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class KnownGame:
    """A value function and its Shapley values."""

    name: str
    n: int
    function: Function
    shapley: Tensor


def moebius(name: str, n: int, coefficients: dict[tuple[int, ...], float]) -> KnownGame:
    """v(S) = Σ of the coefficients of all sets inside S; each is shared equally by its members."""

    def function(mask: Tensor) -> Tensor:
        total = torch.zeros(len(mask), dtype=torch.float64)
        for members, coefficient in coefficients.items():
            total += coefficient * mask[:, torch.tensor(members, dtype=torch.long)].all(1).double()
        return total

    shapley = torch.zeros(n, dtype=torch.float64)
    for members, coefficient in coefficients.items():
        for i in members:
            shapley[i] += coefficient / len(members)
    return KnownGame(name, n, function, shapley)


def random_moebius(n: int, order: int, seed: int = 0) -> KnownGame:
    """Interactions of all sets up to a size."""
    draw = torch.Generator().manual_seed(seed)
    sets = [s for size in range(order + 1) for s in itertools.combinations(range(n), size)]
    values = torch.randn(len(sets), generator=draw, dtype=torch.float64).tolist()
    return moebius(f"moebius-order-{order}-n-{n}", n, dict(zip(sets, values, strict=True)))


def known_games(largest: int = 12) -> list[KnownGame]:
    """Additive, symmetric, dummy player, unanimity, and random interactions, over many sizes."""
    games = []
    for n in (1, 2, 3, 5, 8, largest):
        everyone = tuple(range(n))
        games += [
            moebius(f"additive-{n}", n, {(i,): float(i) - 2.5 for i in range(n)} | {(): 3.0}),
            moebius(f"unanimity-{n}", n, {everyone: 7.0}),
            moebius(f"dummy-{n}", n, {everyone[:-1]: 2.0, (0,): 1.0} if n > 1 else {(): 1.0}),
            KnownGame(
                f"symmetric-{n}",
                n,
                lambda mask: mask.sum(1).double() ** 2,
                torch.full((n,), float(n), dtype=torch.float64),
            ),
        ]
        games += [random_moebius(n, order) for order in (1, 2, 3) if order <= n]
    games += [random_moebius(n, n) for n in (1, 4, 8)]
    return games


def brute_force_shapley(function: Function, n: int) -> Tensor:
    """The mean marginal contribution over all n! orders."""
    total = torch.zeros(n, dtype=torch.float64)
    for order in itertools.permutations(range(n)):
        mask = torch.zeros(n + 1, n, dtype=torch.bool)
        for step, i in enumerate(order):
            mask[step + 1 :, i] = True
        values = function(mask).double()
        total[list(order)] += values[1:] - values[:-1]
    return total / math.factorial(n)

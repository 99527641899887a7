"""Games with known answers: every value of interest follows from the coefficients.

A game is given in its Möbius (Harsanyi) form: v(S) is the sum of the coefficients of all subsets of S. Each estimand is
then a sum over sets. A Shapley value shares a set's coefficient equally among its members. A Banzhaf value weights it
with the probability that the other members are present. Leave-one-out loses the coefficients of all sets that contain
the feature.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["ESTIMANDS", "KnownGame", "brute_force_shapley", "known_games", "random_moebius"]

Sets = Mapping[tuple[int, ...], float]

ESTIMANDS: Mapping[str, Callable[[int], float]] = {
    "Shapley value": lambda size: 1 / size,
    "Banzhaf value": lambda size: 0.5 ** (size - 1),
    "leave-one-out": lambda size: 1.0,
}
"""The share of a set's coefficient that each of its members gets, as a function of the set's size."""


@dataclass(frozen=True)
class KnownGame:
    """A value function with known attributions.

    Attributes:
        name: name in test ids and messages.
        n: number of features.
        coefficients: coefficient of each set, by its members.
    """

    name: str
    n: int
    coefficients: Sets

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
        """Compute v of each coalition, float64."""
        members, weights = self._sets
        inside = mask.double() @ members.T == members.sum(1)
        return (inside * weights).sum(1)

    @functools.cached_property
    def _sets(self) -> tuple[Float[Tensor, "C F"], Float[Tensor, " C"]]:
        """The sets as rows of ones, and their coefficients; filling the rows takes longer than evaluating them."""
        members = torch.zeros(len(self.coefficients), self.n, dtype=torch.float64)
        for row, chosen in enumerate(self.coefficients):
            members[row, list(chosen)] = 1.0
        return members, torch.tensor(list(self.coefficients.values()), dtype=torch.float64)

    def truth(self, estimand: str) -> Float[Tensor, " F"] | None:
        """The correct value of every feature, or ``None`` for an estimand that is not among ``ESTIMANDS``."""
        share = ESTIMANDS.get(estimand)
        if share is None:
            return None
        found = torch.zeros(self.n, dtype=torch.float64)
        for members, coefficient in self.coefficients.items():
            for i in members:
                found[i] += coefficient * share(len(members))
        return found

    @property
    def shapley(self) -> Float[Tensor, " F"]:
        """The Shapley values."""
        found = self.truth("Shapley value")
        assert found is not None
        return found

    def permuted(self, order: list[int]) -> KnownGame:
        """The same game with feature i renamed to ``order[i]``."""
        renamed = {tuple(sorted(order[i] for i in s)): c for s, c in self.coefficients.items()}
        return KnownGame(f"{self.name}-permuted", self.n, renamed)

    def plus(self, constant: float) -> KnownGame:
        """The same game with a constant added to every value."""
        shifted = dict(self.coefficients)
        shifted[()] = shifted.get((), 0.0) + constant
        return KnownGame(f"{self.name}-plus-{constant:g}", self.n, shifted)


def random_moebius(n: int, order: int, seed: int = 0) -> KnownGame:
    """A game with random interactions of all sets of up to ``order`` features."""
    draw = torch.Generator().manual_seed(seed)
    sets = [s for size in range(order + 1) for s in itertools.combinations(range(n), size)]
    values = torch.randn(len(sets), generator=draw, dtype=torch.float64).tolist()
    return KnownGame(f"moebius-order-{order}-n-{n}", n, dict(zip(sets, values, strict=True)))


def known_games(largest: int = 12) -> list[KnownGame]:
    """Games of many sizes: additive, symmetric, with a dummy player, unanimity, and random interactions."""
    games = []
    for n in (1, 2, 3, 5, 8, largest):
        everyone = tuple(range(n))
        # v(S) = |S|²: 1 for each feature, and 2 for each pair.
        symmetric: Sets = {(i,): 1.0 for i in range(n)} | dict.fromkeys(itertools.combinations(range(n), 2), 2.0)
        games += [
            KnownGame(f"additive-{n}", n, {(i,): float(i) - 2.5 for i in range(n)} | {(): 3.0}),
            KnownGame(f"unanimity-{n}", n, {everyone: 7.0}),
            KnownGame(f"dummy-{n}", n, {everyone[:-1]: 2.0, (0,): 1.0} if n > 1 else {(): 1.0}),
            KnownGame(f"symmetric-{n}", n, symmetric),
        ]
        games += [random_moebius(n, order) for order in (1, 2, 3) if order <= n]
    return games + [random_moebius(n, n) for n in (4, 8)]


def brute_force_shapley(function: Callable[[Tensor], Tensor], n: int) -> Float[Tensor, " F"]:
    """Shapley values as mean marginal contributions over all n! orders, for small n."""
    total = torch.zeros(n, dtype=torch.float64)
    for order in itertools.permutations(range(n)):
        mask = torch.zeros(n + 1, n, dtype=torch.bool)
        for step, i in enumerate(order):
            mask[step + 1 :, i] = True
        values = function(mask).double()
        total[list(order)] += values[1:] - values[:-1]
    return total / math.factorial(n)

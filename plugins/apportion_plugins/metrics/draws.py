"""Distinct coalitions, drawn uniformly, and statistics of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.options import whole_number
from apportion_plugins.samplers.tables import all_coalitions

__all__ = ["FEWEST", "Drawn", "any_coalitions", "checked_draws", "coalitions_of_size", "correlation"]

FEWEST = 4
"""Minimum number of draws, which the standard error of a correlation requires."""
_FEW = 4
"""If there are at most this many coalitions per draw, they are all listed first and drawn from the list."""


@dataclass(frozen=True)
class Drawn:
    """Distinct coalitions, drawn uniformly.

    Attributes:
        mask: one coalition per row.
        left: share of all coalitions that was not drawn; 0 if ``mask`` has all of them.
    """

    mask: Bool[Tensor, "S F"]
    left: float

    def mean_error(self, numbers: Float[Tensor, " S"]) -> float | None:
        """The standard error of a mean over the draws; ``None`` if all coalitions were drawn."""
        return float(numbers.std() * math.sqrt(self.left / len(numbers))) if self.left else None


def any_coalitions(n_features: int, count: int, rng: torch.Generator) -> Drawn:
    """Draws from all 2^F coalitions, the empty and the full one included; all of them if there are no more."""
    total = 2**n_features

    def draw() -> Bool[Tensor, " F"]:
        return torch.rand(n_features, generator=rng) < 0.5

    return _drawn(total, count, rng, lambda: all_coalitions(n_features), draw)


def coalitions_of_size(n_features: int, size: int, count: int, rng: torch.Generator) -> Drawn:
    """Draws from the coalitions of one size; all of them if there are no more."""

    def every() -> Bool[Tensor, "S F"]:
        chosen = torch.tensor(list(itertools.combinations(range(n_features), size)))
        return torch.zeros(len(chosen), n_features, dtype=torch.bool).scatter(1, chosen, True)

    def draw() -> Bool[Tensor, " F"]:
        return torch.randperm(n_features, generator=rng) < size

    return _drawn(math.comb(n_features, size), count, rng, every, draw)


def checked_draws(option: str, count: object) -> int:
    """Check the number of coalitions to draw.

    Raises:
        InputError: the number is not a whole number of at least 4.
    """
    return whole_number(option, count, least=FEWEST)


def correlation(a: Float[Tensor, " S"], b: Float[Tensor, " S"]) -> float:
    """Pearson's correlation; 0 if either is constant up to rounding."""
    parts = []
    for numbers in (a, b):
        centred = numbers - numbers.mean()
        if centred.abs().max() <= 1e-12 * numbers.abs().max():
            return 0.0
        parts.append(centred / centred.norm())
    return max(-1.0, min(1.0, float(parts[0] @ parts[1])))


def _drawn(
    total: int,
    count: int,
    rng: torch.Generator,
    every: Callable[[], Bool[Tensor, "S F"]],
    draw: Callable[[], Bool[Tensor, " F"]],
) -> Drawn:
    """``count`` of ``total`` coalitions without repetition."""
    if total <= count:
        return Drawn(every(), 0.0)
    if total <= _FEW * count:
        return Drawn(every()[torch.randperm(total, generator=rng)[:count]], 1 - count / total)
    rows: dict[bytes, Bool[Tensor, " F"]] = {}
    while len(rows) < count:
        row = draw()
        rows.setdefault(row.numpy().tobytes(), row)
    return Drawn(torch.stack(list(rows.values())), 1 - count / total)

"""Distinct coalitions, drawn evenly, and what is known of a mean or correlation over them."""

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
"""Draws that a standard error of a correlation takes."""
_FEW = 4
"""Where there are at most this many times as many coalitions as are wanted, they are listed and then drawn from."""


@dataclass(frozen=True)
class Drawn:
    """Different coalitions, each as likely as any other.

    Attributes:
        mask: one a row.
        left: the share of all there are that was not drawn; 0 when they are all here.
    """

    mask: Bool[Tensor, "S F"]
    left: float

    def mean_error(self, numbers: Float[Tensor, " S"]) -> float | None:
        """The standard error of a mean over the draws; ``None`` when nothing was left out."""
        return float(numbers.std() * math.sqrt(self.left / len(numbers))) if self.left else None


def any_coalitions(n_features: int, count: int, rng: torch.Generator) -> Drawn:
    """Coalitions out of all 2^F, the empty and the full one among them; all of them if there are no more."""
    total = 2**n_features

    def draw() -> Bool[Tensor, " F"]:
        return torch.rand(n_features, generator=rng) < 0.5

    return _drawn(total, count, rng, lambda: all_coalitions(n_features), draw)


def coalitions_of_size(n_features: int, size: int, count: int, rng: torch.Generator) -> Drawn:
    """Coalitions of one size; all of them if there are no more."""

    def every() -> Bool[Tensor, "S F"]:
        chosen = torch.tensor(list(itertools.combinations(range(n_features), size)))
        return torch.zeros(len(chosen), n_features, dtype=torch.bool).scatter(1, chosen, True)

    def draw() -> Bool[Tensor, " F"]:
        return torch.randperm(n_features, generator=rng) < size

    return _drawn(math.comb(n_features, size), count, rng, every, draw)


def checked_draws(option: str, count: object) -> int:
    """How many coalitions to draw, as an option gives it.

    Raises:
        InputError: not a whole number of at least 4.
    """
    return whole_number(option, count, least=FEWEST)


def correlation(a: Float[Tensor, " S"], b: Float[Tensor, " S"]) -> float:
    """Pearson's correlation; 0 where one of them is constant up to rounding."""
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

"""Features that cannot affect an output, such as tokens that come after it, get exactly 0 from every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.protocols.estimands import EFFICIENT
from apportion.protocols.features import Feature
from apportion.protocols.methods import Estimate

__all__ = ["adding_up", "possible_features", "within_possible"]

ROUNDING = 1e-9
"""Difference, relative to the largest number, up to which numbers add up."""

SOLVED = 1e-6
"""The same for the output of a method, which may have solved equations."""


def possible_features(
    features: Sequence[Feature], n_tokens: int, explained: Bool[Tensor, " T"] | None = None
) -> Bool[Tensor, "F K"]:
    """Mask of the features that can affect each output: each token those before it, and the whole target all of them.

    If the values of some tokens are 0 by definition, no feature can affect these, nor the whole target through them.

    Args:
        features: the features, of the prompt and perhaps of the target.
        n_tokens: number of target tokens.
        explained: the tokens whose values are not 0 by definition; ``None`` for all.
    """
    rows = [[feature.precedes(t) for t in range(n_tokens)] for feature in features]
    tokens = torch.tensor(rows, dtype=torch.bool).reshape(len(features), n_tokens)
    if explained is None:
        return torch.cat([torch.ones(len(features), 1, dtype=torch.bool), tokens], dim=1)
    tokens &= explained
    return torch.cat([tokens.any(1, keepdim=True), tokens], dim=1)


def within_possible(estimate: Estimate, possible: Bool[Tensor, "F K"], estimand: str) -> Estimate:
    """The estimate with exactly 0, and no error, where a feature cannot affect an output.

    Exact methods and those that take differences return 0 there by themselves, because a game's values are exactly
    equal. A regression on sampled coalitions returns noise. If the values of the estimand add up to v(N) − v(∅), the
    noise of these features is divided among the others in equal parts. In a regression whose coalitions are drawn
    alike for all features, that is what leaving them out comes to. Where the values of the tokens added up to those of
    the whole target, they still do.

    Args:
        estimate: the estimate of a method.
        possible: which features can affect each output.
        estimand: name of the quantity that the values estimate.
    """
    if bool(possible.all()) or bool(estimate.values[:, 1:].isnan().all()):
        return estimate  # the whole target alone was scored, which all features can affect
    values = estimate.values
    wrong = torch.where(possible, 0.0, values)
    given = wrong.sum(0) / possible.sum(0).clamp(min=1) if estimand in EFFICIENT else torch.zeros_like(wrong[0])
    moved = torch.where(possible, given, -values)
    if bool(adding_up(values, rounding=SOLVED, scale=float(values.abs().max())).all()):
        moved[:, 0] = moved[:, 1:].sum(1)
    errors = None if estimate.std_error is None else torch.where(possible, estimate.std_error, 0.0)
    replicates = estimate.replicates
    if replicates is not None:
        replicates = torch.where(possible[:, 0], replicates + moved[:, 0], 0.0)
    return replace(estimate, values=torch.where(possible, values + moved, 0.0), std_error=errors, replicates=replicates)


def adding_up(
    values: Float[Tensor, "S K"], *, rounding: float = ROUNDING, scale: float | None = None
) -> Bool[Tensor, " S"]:
    """Mask of the rows in which the values of the tokens add up to that of the whole target.

    Args:
        values: the whole target, then each token.
        rounding: rounding error, relative to the largest number.
        scale: the largest number; ``None`` for that of each row.
    """
    largest = values.abs().max(1).values if scale is None else torch.full((len(values),), scale, dtype=values.dtype)
    return (values[:, 0] - values[:, 1:].sum(1)).abs() <= rounding * largest

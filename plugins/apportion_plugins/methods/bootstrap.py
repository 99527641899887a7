"""Bootstrap replicates of sampled estimates, without new evaluations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["REPLICATES", "replicates_of"]

REPLICATES = 200


def replicates_of(values: Float[Tensor, " F"], moves: Float[Tensor, "D F"]) -> Float[Tensor, "R F"]:
    """The weighted bootstrap (Rubin 1981) of an estimate that is linear in its draws, at least approximately.

    Each draw gets a random weight w with mean 1 and variance 1, from the exponential distribution. A replicate is
    values + Σ (w − 1) · moves, so its variance is Σ moves².

    Args:
        values: the estimate.
        moves: contribution of each of D draws to the estimate, scaled so that their squares add up to the squared
            standard errors.
    """
    # A separate generator, so that a method draws the same coalitions with or without replicates.
    rng = torch.Generator().manual_seed(0)
    weight = torch.empty(REPLICATES, len(moves), dtype=torch.float64).exponential_(generator=rng)
    weight = (weight - weight.mean(0)) / weight.std(0)
    found: Tensor = values + weight @ moves
    return found

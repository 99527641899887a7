"""What a sampled estimate could have been with other draws: the bootstrap, without new evaluations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["REPLICATES", "replicates_of"]

REPLICATES = 200


def replicates_of(values: Float[Tensor, " F"], moves: Float[Tensor, "D F"]) -> Float[Tensor, "R F"]:
    """The weighted bootstrap (Rubin 1981) of an estimate that is linear in its draws, or nearly.

    Each draw gets a random weight w of mean 1 and variance 1, from the exponential distribution: a replicate is the
    values + Σ (w − 1) · moves, so that its variance is Σ moves².

    Args:
        values: the estimate.
        moves: what each draw contributes to it, on the scale of the standard errors: their squares add up to those
            of the errors.
    """
    # A generator of its own: a method draws the same coalitions with and without replicates.
    rng = torch.Generator().manual_seed(0)
    weight = torch.empty(REPLICATES, len(moves), dtype=torch.float64).exponential_(generator=rng)
    weight = (weight - weight.mean(0)) / weight.std(0)
    found: Tensor = values + weight @ moves
    return found

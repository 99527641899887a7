"""All coalitions, for samplers whose budget allows them, and what is known of their sizes."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["all_coalitions", "kernel_weights"]


def all_coalitions(n_features: int) -> Bool[Tensor, "S F"]:
    """All 2^F coalitions; row r holds feature i when bit i of r is set."""
    numbers = torch.arange(2**n_features)
    return (numbers[:, None] >> torch.arange(n_features)) & 1 == 1


def kernel_weights(mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
    """The Shapley kernel 1 / (C(n, s) · s · (n − s)) of coalitions that are neither empty nor full."""
    n = mask.shape[1]
    of_size = [0.0, *(1 / (math.comb(n, s) * s * (n - s)) for s in range(1, n)), 0.0]
    return torch.tensor(of_size, dtype=torch.float64)[mask.sum(1)]

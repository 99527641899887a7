"""Exact interaction indices of pairs, from the table of all coalitions."""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["interactions_of_table"]


def interactions_of_table(table: Float[Tensor, "S K"], index: str) -> Float[Tensor, "F F K"]:
    """The interaction index of every pair, from a table of values in the order of ``all_coalitions``.

    I_ij = Σ over S without i and j of w(|S|) · (v(S∪ij) − v(S∪i) − v(S∪j) + v(S)); symmetric, zero on the diagonal.

    Args:
        table: values of all coalitions.
        index: ``"shapley"``, w(s) = s!(n−s−2)!/(n−1)!, or ``"banzhaf"``, w = 2^(2−n).
    """
    n = len(table).bit_length() - 1
    numbers = torch.arange(len(table))
    sizes = ((numbers[:, None] >> torch.arange(n)) & 1).sum(1)
    weights = torch.tensor(_weights(n, index), dtype=table.dtype)
    found = torch.zeros(n, n, table.shape[1], dtype=table.dtype)
    for i, j in itertools.combinations(range(n), 2):
        without = numbers[(numbers & (1 << i | 1 << j)) == 0]
        both = table[without | 1 << i | 1 << j] - table[without | 1 << i]
        found[i, j] = found[j, i] = weights[sizes[without]] @ (both - table[without | 1 << j] + table[without])
    return found


def _weights(n: int, index: str) -> list[float]:
    """Weights w(s) of the differences, by the size s of the coalition that the pair joins."""
    if index == "banzhaf":
        return [2.0 ** (2 - n)] * (n - 1)
    return [1 / ((n - 1) * math.comb(n - 2, s)) for s in range(n - 1)]

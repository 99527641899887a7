"""The text by which models are known again whose weights engines hold, and scores as tensors; for several backends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.batch import ScoringBatch

__all__ = ["PROBE", "as_tensor"]

PROBE = "The quick brown fox jumps over the lazy dog, and then it said: 17 + 25 = 42."
"""A text in whose tokens models of different weights differ."""


def as_tensor(found: Sequence[Sequence[float]], batch: ScoringBatch) -> Float[Tensor, "B T"]:
    """Scores of the rows of a batch, with zeros after shorter targets."""
    scores = torch.zeros(batch.n_rows, batch.n_targets, dtype=torch.float64)
    for i, one in enumerate(found):
        scores[i, : len(one)] = torch.tensor(one, dtype=torch.float64)
    return scores

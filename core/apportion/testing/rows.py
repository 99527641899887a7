"""Rows that the contract of backends scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.backend import Session
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import Row

__all__ = ["Rows", "rows_of", "scored", "scored_rows"]

LENGTHS = (1, 3, 9, 9, 30, 2, 17)
"""Lengths of the prompts without a common prefix: seven rows, two of them of equal length."""

Rows = Sequence[tuple[int, ...]]


def rows_of(prefix: int) -> list[tuple[int, ...]]:
    """Random prompts of several lengths that share ``prefix`` tokens."""
    draw = torch.Generator().manual_seed(prefix)
    shared = tuple(torch.randint(0, 256, (prefix,), generator=draw).tolist())
    return [shared + tuple(torch.randint(0, 256, (n,), generator=draw).tolist()) for n in LENGTHS]


def scored(session: Session, rows: Rows, prefix: int, target: tuple[int, ...]) -> Float[Tensor, "B T"]:
    """Score rows that share ``prefix`` tokens, in a layout that the session accepts."""
    return scored_rows(session, [Row(tuple(row), target) for row in rows], prefix)


def scored_rows(session: Session, rows: Sequence[Row], prefix: int = 0) -> Float[Tensor, "B T"]:
    """Score rows whose prompts share ``prefix`` tokens, in a layout that the session accepts."""
    shared = prefix if session.layout.prefix_sharing else 0
    if session.layout.padding:
        return session.log_probs(ScoringBatch(tuple(rows), shared))
    found = torch.full((len(rows), max(len(row.target) for row in rows)), torch.nan, dtype=torch.float64)
    for shape in {(len(row.prompt), len(row.target)) for row in rows}:
        alike = [i for i, row in enumerate(rows) if (len(row.prompt), len(row.target)) == shape]
        scores = session.log_probs(ScoringBatch(tuple(rows[i] for i in alike), shared))
        found[alike, : shape[1]] = scores.double()
    return found

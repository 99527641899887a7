"""Comparison of a graph with PyTorch, on rows of shapes that were not traced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import Row
from apportion.scoring.prefix_tree import in_tree_order
from apportion_backends.onnxruntime.packed_graph import CHUNK, PackedGraph
from apportion_backends.torch.session import TorchSession

__all__ = ["compare", "rows_to_compare"]

LONG = CHUNK + 70
"""Tokens of the longest row, which is read in more than one call."""


def rows_to_compare(vocabulary: int, limit: int | None) -> list[Row]:
    """Rows that share beginnings of many lengths, short ones first.

    Args:
        vocabulary: number of token ids.
        limit: maximum number of tokens.
    """
    draw = np.random.default_rng(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.integers(vocabulary, size=count).tolist())

    longest = min(LONG, limit or LONG)
    start, target = tokens(longest - 4), tokens(4)
    lengths = [n for n in (7, 24, 60, 150) if n < len(start)]
    rows = [Row(start[:7] + tokens(5), target), Row(start[:1], target[:1]), Row(start[:9], target)]
    rows += [Row(start[:n] + tokens(3), target[:2]) for n in lengths if n + 5 <= longest]
    rows += [Row(start, target)]
    return [row for row in rows if limit is None or len(row.prompt) + len(row.target) <= limit]


def compare(graph: PackedGraph, session: TorchSession, rows: Sequence[Row]) -> tuple[float, list[list[float]]]:
    """Score rows in packed batches that continue from one another, and each alone in PyTorch.

    Returns:
        The largest difference in nats, and the scores of the graph, in the order of the rows.
    """
    order = in_tree_order(rows)
    half = max(1, len(order) // 2)
    scores: dict[int, list[float]] = {}
    for part in (order[:half], order[half:]):
        if part:
            found = graph.log_probs([rows[i] for i in part])
            scores |= {i: one[: len(rows[i].target)].tolist() for i, one in zip(part, found, strict=True)}
    graph.release()
    worst = 0.0
    for i, row in enumerate(rows):
        expected = session.log_probs(ScoringBatch((row,)))[0]
        difference = (torch.tensor(scores[i]).double() - expected.double()).abs().max()
        worst = max(worst, float(difference)) if torch.isfinite(difference) else float("inf")
    return worst, [scores[i] for i in range(len(rows))]

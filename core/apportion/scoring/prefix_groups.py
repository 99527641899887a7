"""Nested groups of rows with a common prefix, for sessions that share one prefix at a time.

The prefix of an inner group extends that of the group around it. A group is made only if it saves more tokens than one
more batch costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from apportion.protocols.row import Row
from apportion.scoring.prefix_tree import shared_prompt

__all__ = ["nested_groups"]


def nested_groups(rows: Sequence[Row], overhead: int) -> list[tuple[list[int], int]]:
    """Numbers of the rows in each group, and the length of their common prefix; outer groups come before inner ones.

    Args:
        rows: distinct rows.
        overhead: cost of one more forward pass, in tokens.
    """
    order = sorted(range(len(rows)), key=lambda i: (rows[i].media, rows[i].prompt))
    shared = [shared_prompt(a, b) for a, b in itertools.pairwise(rows[i] for i in order)]
    groups = _nested(np.array(order), np.array(shared, dtype=np.int64), 0, overhead)
    return [(members.tolist(), prefix) for members, prefix in groups]


def _nested(rows: np.ndarray, shared: np.ndarray, prefix: int, overhead: int) -> list[tuple[np.ndarray, int]]:
    """Groups ``(rows, prefix)`` of rows in lexical order that already share ``prefix`` tokens.

    Greedy: the run of rows whose longer common prefix saves most becomes a group inside this one, as long as it saves
    more than the additional forward passes cost.
    """
    inner: list[tuple[np.ndarray, int]] = []
    while len(rows) > 1:
        saved, first, last, longer = _most_saving(shared, prefix)
        # The prefix takes one more forward pass, and splitting off rows takes a second one.
        forwards = 1 if last - first == len(rows) - 1 else 2
        if saved <= forwards * overhead:
            break
        inner += _nested(rows[first : last + 1], shared[first:last], longer, overhead)
        # Two rows that become neighbours share the shortest of the prefixes shared between them.
        bridge = [shared[max(first - 1, 0) : last + 1].min()] if first > 0 and last < len(rows) - 1 else []
        shared = np.concatenate([shared[: max(first - 1, 0)], bridge, shared[last + 1 :]]).astype(np.int64)
        rows = np.concatenate([rows[:first], rows[last + 1 :]])
    return ([(rows, prefix)] if len(rows) else []) + inner


def _most_saving(shared: np.ndarray, prefix: int) -> tuple[int, int, int, int]:
    """The run of rows that would save most with a longer prefix: ``(tokens saved, first, last, length)``.

    Encoding ``length − prefix`` more tokens once, instead of in each row, saves that many tokens for every row but one.
    As for the largest rectangle under a histogram, one pass with a stack of increasing lengths finds it.
    """
    best = (0, 0, 0, prefix)
    stack: list[tuple[int, int]] = []
    for i, height in enumerate([*shared.tolist(), -1]):
        start = i
        while stack and stack[-1][1] >= height:
            start, tall = stack.pop()
            saved = (i - start) * (tall - prefix)
            best = max(best, (saved, start, i, tall))
        stack.append((start, height))
    return best

"""From token sequences to batches. Knows nothing of models or devices.

Sequences that begin alike are put into groups whose common prefix is encoded once. Groups are nested: the
prefix of an inner group extends that of the group around it. A group is made only where it saves more tokens
than one more batch costs. Inside a group rows are sorted by length, so that little is padded, and cut into
batches that fit a memory budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from apportion.backend import Layout, ScoringBatch

__all__ = ["Batch", "Group", "Plan", "common_prefix", "plan"]

RowBytes = Callable[[int, int, int], int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are scored together, by their numbers, and how many leading tokens they share."""

    rows: tuple[int, ...]
    prefix: int


@dataclass(frozen=True, slots=True)
class Group:
    """Rows with a common prefix.

    Attributes:
        prefix: its length.
        batches: the rows.
    """

    prefix: int
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is scored in which order.

    Attributes:
        sequences: the prompts, distinct.
        targets: token ids of what is scored after every row, one after the other.
        groups: outer groups before the inner ones that extend their prefix.
    """

    sequences: Sequence[tuple[int, ...]]
    targets: tuple[tuple[int, ...], ...]
    groups: tuple[Group, ...]

    @property
    def batches(self) -> tuple[Batch, ...]:
        """The batches of all groups, in order."""
        return tuple(batch for group in self.groups for batch in group.batches)

    @property
    def forwarded_tokens(self) -> int:
        """Tokens the model reads under this plan, padding included.

        The last target token is predicted, not read.
        """
        encoded: tuple[int, ...] = ()
        total = 0
        for group in self.groups:
            prefix = self.sequences[group.batches[0].rows[0]][: group.prefix]
            known = common_prefix(encoded, prefix)
            if known < len(prefix):
                # A session keeps the longest prefix so far, and goes on from where the next one leaves it.
                total += len(prefix) - known
                encoded = prefix
            total += sum(self.read(batch) for batch in group.batches)
        return total

    def width(self, batch: Batch) -> int:
        """Prompt tokens of the batch's longest row beyond its prefix."""
        return max(len(self.sequences[row]) for row in batch.rows) - batch.prefix

    def read(self, batch: Batch) -> int:
        """Tokens the model reads for a batch whose prefix is encoded already."""
        width = self.width(batch)
        return sum(len(batch.rows) * (width + len(target) - 1) for target in self.targets)

    def tensors(self, batch: Batch) -> ScoringBatch:
        """The tensors of a batch, with the first target."""
        prompts = [self.sequences[row] for row in batch.rows]
        return ScoringBatch.of(prompts, prompts[0][: batch.prefix], self.targets[0])


def plan(
    sequences: Sequence[tuple[int, ...]],
    targets: tuple[tuple[int, ...], ...],
    layout: Layout,
    row_bytes: RowBytes,
    memory_budget: int,
) -> Plan:
    """Lay distinct token sequences out in batches.

    Args:
        sequences: prompts of at least one token each.
        targets: token ids of what is scored after each of them, one after the other.
        layout: what the session wants.
        row_bytes: memory of one row, from ``(prefix, suffix, targets)`` lengths.
        memory_budget: bytes a batch may take; a single row is always allowed.
    """

    def room(prefix: int, length: int) -> int:
        """Rows of this length that a batch may hold."""
        suffix = length - prefix
        by_memory = memory_budget // max(1, row_bytes(prefix, suffix, longest))
        by_tokens = layout.batch_tokens // (suffix + longest)
        return max(1, min(by_memory, by_tokens))

    longest = max(map(len, targets))
    order = np.array(sorted(range(len(sequences)), key=sequences.__getitem__), dtype=np.int64)
    groups = [(order, 0)]
    if layout.prefix_sharing and len(sequences) > 1:
        groups = _nested(order, _shared_with_next(sequences, order), 0, layout.batch_overhead)
    return Plan(
        sequences,
        targets,
        tuple(
            Group(prefix, tuple(_batches(sequences, rows.tolist(), prefix, layout.padding, room)))
            for rows, prefix in groups
        ),
    )


def _batches(
    sequences: Sequence[tuple[int, ...]],
    rows: list[int],
    prefix: int,
    padding: bool,
    room: Callable[[int, int], int],
) -> list[Batch]:
    """Rows, longest first, cut where a batch is full or, without padding, where the length changes."""
    found: list[Batch] = []
    current: list[int] = []
    for row in sorted(rows, key=lambda row: (-len(sequences[row]), row)):
        # The first row of a batch sets its width.
        width = len(sequences[current[0]]) if current else 0
        other_length = not padding and len(sequences[row]) != width
        if current and (other_length or len(current) >= room(prefix, width)):
            found.append(Batch(tuple(current), prefix))
            current = []
        current.append(row)
    if current:
        found.append(Batch(tuple(current), prefix))
    return found


def _shared_with_next(sequences: Sequence[tuple[int, ...]], order: np.ndarray) -> np.ndarray:
    """How many leading tokens each sequence shares with the next one in order.

    The first target token is predicted by the last token of the prompt, so at least one token of each stays
    in its row.
    """
    lengths = np.array([len(sequences[row]) for row in order])
    table = np.full((len(order), int(lengths.max())), -1, dtype=np.int64)
    for i, row in enumerate(order):
        table[i, : lengths[i]] = sequences[row]
    differs = table[1:] != table[:-1]
    # Distinct sequences differ somewhere: at the latest where the shorter one ends.
    shared: np.ndarray = np.minimum(differs.argmax(1), np.minimum(lengths[1:], lengths[:-1]) - 1)
    return shared


def _nested(rows: np.ndarray, shared: np.ndarray, prefix: int, overhead: int) -> list[tuple[np.ndarray, int]]:
    """Groups ``(rows, prefix)`` of rows in lexical order that share ``prefix`` tokens already.

    Greedy: the stretch of rows whose longer common prefix saves most becomes a group inside this one, as
    long as it saves more than the forwards cost that it adds.
    """
    inner: list[tuple[np.ndarray, int]] = []
    while len(rows) > 1:
        saved, first, last, longer = _most_saving(shared, prefix)
        # The prefix is one more forward; rows that are split off are a second one.
        forwards = 1 if last - first == len(rows) - 1 else 2
        if saved <= forwards * overhead:
            break
        inner += _nested(rows[first : last + 1], shared[first:last], longer, overhead)
        # What is left shares with its new neighbour what it shared with everything between them.
        bridge = [shared[max(first - 1, 0) : last + 1].min()] if first > 0 and last < len(rows) - 1 else []
        shared = np.concatenate([shared[: max(first - 1, 0)], bridge, shared[last + 1 :]]).astype(np.int64)
        rows = np.concatenate([rows[:first], rows[last + 1 :]])
    return ([(rows, prefix)] if len(rows) else []) + inner


def _most_saving(shared: np.ndarray, prefix: int) -> tuple[int, int, int, int]:
    """The stretch of rows that saves most by a prefix of its own: ``(tokens saved, first, last, length)``.

    Encoding ``length − prefix`` more tokens once instead of in each row saves that many for every row but
    one. As with the largest rectangle under a histogram, one pass with a stack of rising lengths finds it.
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


def common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many leading tokens two sequences share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

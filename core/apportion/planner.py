"""From token sequences to batches. Knows nothing of models or devices.

A plan shares the prefix that all sequences have in common, sorts the rest by length so that little is
padded, and cuts it into batches that fit a memory budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apportion.backend import Layout, ScoringBatch

__all__ = ["Plan", "common_prefix", "plan"]

RowBytes = Callable[[int, int, int], int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows are scored together.

    Attributes:
        sequences: the prompts, distinct.
        target: the target's token ids, the same for every row.
        prefix: how many tokens of every prompt are encoded once for all.
        batches: row numbers of each batch.
    """

    sequences: Sequence[tuple[int, ...]]
    target: tuple[int, ...]
    prefix: int
    batches: tuple[tuple[int, ...], ...]

    @property
    def forwarded_tokens(self) -> int:
        """Tokens the model reads under this plan, padding included.

        The last target token is predicted, not read.
        """
        longest = (max(len(self.sequences[row]) for row in batch) for batch in self.batches)
        read = sum(
            len(batch) * (length - self.prefix + len(self.target) - 1)
            for batch, length in zip(self.batches, longest, strict=True)
        )
        return self.prefix + read

    def batch(self, rows: Sequence[int]) -> ScoringBatch:
        """The tensors of some rows."""
        prompts = [self.sequences[row] for row in rows]
        return ScoringBatch.of(prompts, prompts[0][: self.prefix], self.target)


def plan(
    sequences: Sequence[tuple[int, ...]],
    target: tuple[int, ...],
    layout: Layout,
    row_bytes: RowBytes,
    memory_budget: int,
) -> Plan:
    """Lay distinct token sequences out in batches.

    Args:
        sequences: prompts of at least one token each.
        target: T token ids that follow each of them.
        layout: what the session wants.
        row_bytes: memory of one row, from ``(prefix, suffix, targets)`` lengths.
        memory_budget: bytes a batch may take; a single row is always allowed.
    """
    shared = _worthwhile_prefix(sequences, layout)
    order = sorted(range(len(sequences)), key=lambda row: (-len(sequences[row]), row))
    batches: list[tuple[int, ...]] = []
    current: list[int] = []
    room = 0
    for row in order:
        length = len(sequences[row])
        # Rows come longest first, so the first row of a batch sets its width.
        other_length = bool(current) and not layout.padding and length != len(sequences[current[0]])
        if current and (len(current) >= room or other_length):
            batches.append(tuple(current))
            current = []
        if not current:
            suffix = length - shared
            by_memory = memory_budget // max(1, row_bytes(shared, suffix, len(target)))
            by_tokens = layout.batch_tokens // (suffix + len(target))
            room = max(1, min(by_memory, by_tokens))
        current.append(row)
    if current:
        batches.append(tuple(current))
    return Plan(sequences, target, shared, tuple(batches))


def common_prefix(sequences: Sequence[tuple[int, ...]]) -> int:
    """How many leading tokens all sequences share, leaving at least one token to each.

    The first target token is predicted by the last token of the prompt, so that one stays in the row.
    """
    if not sequences:
        return 0
    # Only the smallest and the largest in lexical order can differ first.
    low, high = min(sequences), max(sequences)
    limit = min(len(sequence) for sequence in sequences) - 1
    shared = 0
    while shared < limit and low[shared] == high[shared]:
        shared += 1
    return shared


def _worthwhile_prefix(sequences: Sequence[tuple[int, ...]], layout: Layout) -> int:
    if not layout.prefix_sharing or len(sequences) < 2:
        return 0
    shared = common_prefix(sequences)
    return shared if shared >= layout.min_prefix else 0

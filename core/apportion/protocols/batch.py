"""The batch that a session scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from apportion.protocols.row import Row

__all__ = ["PaddedBatch", "ScoringBatch"]


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """The rows of a batch as tensors on the CPU, right-padded with any id.

    Attributes:
        prefix_ids: shared by every row.
        suffix_ids: the rest of each prompt.
        suffix_lengths: number of tokens in each row of ``suffix_ids``, without the padding; at least 1.
        target_ids: the target of each row.
        target_lengths: number of tokens in each row of ``target_ids``, without the padding; at least 1.
    """

    prefix_ids: Int[Tensor, " P"]
    suffix_ids: Int[Tensor, "B S"]
    suffix_lengths: Int[Tensor, " B"]
    target_ids: Int[Tensor, "B T"]
    target_lengths: Int[Tensor, " B"]


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """B rows to score.

    Attributes:
        rows: prompts, targets and media.
        prefix_length: leading prompt tokens that all rows share and that are encoded once; 0 for sessions without
            ``PREFIX_CACHE``, and less than the length of any prompt.
        packed: read each distinct prefix of the rows once; only for sessions whose layout allows ``packing``.
    """

    rows: tuple[Row, ...]
    prefix_length: int = 0
    packed: bool = False

    @property
    def n_rows(self) -> int:
        """B."""
        return len(self.rows)

    @property
    def n_targets(self) -> int:
        """T, the length of the longest target."""
        return max(len(row.target) for row in self.rows)

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens that are encoded once."""
        return self.rows[0].prompt[: self.prefix_length]

    def targets(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, " B"]]:
        """Token ids of the targets, right-padded with any id, and their lengths."""
        return _padded([row.target for row in self.rows])

    def padded(self) -> PaddedBatch:
        """The rows as tensors; each call builds new ones."""
        suffixes = _padded([row.prompt[self.prefix_length :] for row in self.rows])
        return PaddedBatch(torch.tensor(self.prefix, dtype=torch.long), *suffixes, *self.targets())

    @classmethod
    def of(
        cls,
        prompts: Sequence[Sequence[int]],
        target: Sequence[int],
        *,
        prefix_length: int = 0,
        packed: bool = False,
    ) -> ScoringBatch:
        """Prompts without media, each followed by the same target."""
        rows = tuple(Row(tuple(prompt), tuple(target)) for prompt in prompts)
        return cls(rows, prefix_length, packed)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B S"], Int[Tensor, " B"]]:
    """Rows of token ids, right-padded with 0, and their lengths."""
    lengths = [len(row) for row in rows]
    ids = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return torch.from_numpy(ids), torch.tensor(lengths)

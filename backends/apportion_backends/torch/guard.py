"""Reading batches with a check: rows that cannot be trusted to a batch are read alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import ApportionError, ScoreError, counted
from apportion.protocols.batch import ScoringBatch
from apportion.scoring.prefix_tree import reused_tokens
from apportion_backends.torch.comparing import difference
from apportion_backends.torch.memory import ran_out_of_memory

__all__ = ["Doubt", "Guard", "Shortcut"]

Shortcut = Literal["packing", "prefix", "padding", "batching"]
"""Ways to read rows together, from the least alike to reading rows alone."""

Doubt = Literal["none", "once", "always"]
"""Frequency of comparing a batch with rows read alone: never, once for each shortcut, or every time."""

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Tolerated difference of states, relative to their standard deviation."""

CONSEQUENCES: dict[Shortcut, str] = {
    "packing": "without packing",
    "prefix": "without sharing prefixes",
    "padding": "in batches of rows of one length",
    "batching": "one at a time",
}

ReadStates = Callable[[ScoringBatch], Float[Tensor, "B T D"]]


class Guard:
    """Reads batches of one model, and doubts them as much as the model's structure asks for.

    Args:
        read: reads the states at the positions that predict the targets, of a batch.
        doubt: frequency of comparing a batch with some of its rows read alone.
        probed_length: the length of rows beyond which batches are compared once for each shortcut, whatever ``doubt``
            says; ``None`` for none.
        joint: prompt and target are read as one row, so that only the length of both counts.

    Attributes:
        doubt: frequency of comparing a batch with some of its rows read alone.
    """

    def __init__(self, read: ReadStates, doubt: Doubt, probed_length: int | None = None, *, joint: bool = True) -> None:
        self.doubt = doubt
        self._read = read
        self._probed_length = probed_length
        self._joint = joint
        self._proven: set[tuple[Shortcut, bool]] = set()
        self._refused: dict[Shortcut, str] = {}

    @property
    def refused(self) -> frozenset[Shortcut]:
        """Shortcuts that gave other numbers than rows read alone."""
        return frozenset(self._refused)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for results."""
        return tuple(self._refused.values())

    def __call__(self, batch: ScoringBatch) -> Float[Tensor, "B T D"]:
        """States of a batch; of its rows alone if they are not finite, or not the same.

        Raises:
            ScoreError: the model fails on a single row.
        """
        shortcut = self._shortcut(batch)
        if shortcut is None or shortcut in self._refused:
            return self._alone(batch)
        try:
            states = self._read(batch)
        except Exception as error:
            if ran_out_of_memory(error):
                raise
            found = self._alone(batch)
            self._refuse(shortcut, f"this model fails on such a batch ({type(error).__name__}: {error!s:.120})")
            return found
        if _has_nan(states, batch):
            # A token whose state is not finite reaches other rows of a batch, even where it is masked.
            return self._alone(batch)
        if self._doubts(shortcut, batch):
            if not self._same(states, batch):
                self._refuse(shortcut, "this model gives other numbers in such a batch")
                return self._alone(batch)
            self._proven.add((shortcut, self._is_long(batch)))
        return states

    def _shortcut(self, batch: ScoringBatch) -> Shortcut | None:
        """The shortcut by which a batch is read; ``None`` for a row alone."""
        if batch.packed:
            return "packing"
        if batch.prefix_length:
            return "prefix"
        if batch.n_rows == 1:
            return None
        shapes = {len(row.read) if self._joint else (len(row.prompt), len(row.target)) for row in batch.rows}
        return "batching" if len(shapes) == 1 else "padding"

    def _doubts(self, shortcut: Shortcut, batch: ScoringBatch) -> bool:
        if self.doubt == "always":
            return True
        long = self._is_long(batch)
        return (self.doubt == "once" or long) and (shortcut, long) not in self._proven

    def _is_long(self, batch: ScoringBatch) -> bool:
        limit = self._probed_length
        return limit is not None and any(len(row.read) > limit for row in batch.rows)

    def _refuse(self, shortcut: Shortcut, reason: str) -> None:
        self._refused[shortcut] = f"{reason}; rows were scored {CONSEQUENCES[shortcut]}"

    def _alone(self, batch: ScoringBatch) -> Float[Tensor, "B T D"]:
        rows = [self._row(batch, i) for i in range(batch.n_rows)]
        found = rows[0].new_zeros(batch.n_rows, batch.n_targets, rows[0].shape[-1])
        for i, row in enumerate(rows):
            found[i, : len(row)] = row
        return found

    def _row(self, batch: ScoringBatch, index: int) -> Float[Tensor, "T D"]:
        row = batch.rows[index]
        try:
            return self._read(ScoringBatch((row,)))[0]
        except Exception as error:
            # An error of a prompt or of a plugin says itself what to do.
            if ran_out_of_memory(error) or isinstance(error, ApportionError):
                raise
            raise ScoreError(
                f"The model failed on a prompt of {counted(len(row.prompt), 'token')} and a target of "
                f"{len(row.target)} "
                f"({type(error).__name__}: {error!s:.300}). If it scores shorter ones, the two together exceed a "
                "limit that its configuration does not declare: shorten the prompt or the target."
            ) from error

    def _same(self, states: Float[Tensor, "B T D"], batch: ScoringBatch) -> bool:
        allowed = TOLERANCE.get(states.dtype, 1e-3)
        for index in _telling(batch):
            alone = self._row(batch, index)
            scale = float(alone[alone.isfinite()].double().std()) or 1.0
            ours = states[index, : len(alone)]
            if not float(difference(ours, alone).max()) <= allowed * scale:
                return False
        return True


def _has_nan(states: Float[Tensor, "B T D"], batch: ScoringBatch) -> bool:
    """True if a state up to the ends of the targets is NaN; those beyond are any."""
    if not bool(states.sum().isnan()):
        return False
    return any(bool(states[i, : len(row.target)].isnan().any()) for i, row in enumerate(batch.rows))


def _telling(batch: ScoringBatch) -> Iterable[int]:
    """The rows that are laid out least as they are alone."""
    lengths = [len(row.read) for row in batch.rows]
    if not batch.packed:
        # Code that was written for single rows may look at the first one only.
        return {0, batch.n_rows - 1, lengths.index(min(lengths)), lengths.index(max(lengths))}
    # The first row may lie there as it does alone; the one that shares least with others lies elsewhere.
    depths = reused_tokens(batch.rows)
    least = min(range(len(depths)), key=lambda i: (i == 0, depths[i]))
    return list(dict.fromkeys((least, len(depths) - 1, 0)))[:2]

"""Rows through a session: planned, read batch by batch, halved where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

import torch
from torch import Tensor

from apportion.errors import BatchTooLargeError
from apportion.protocols.backend import Session
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion.scoring.plan import Batch, Plan, plan, read_again
from apportion.scoring.turns import Turns

__all__ = ["Batches", "Read"]

Read = Callable[[ScoringBatch], Tensor]
"""Gives one row of a tensor for each row of a batch."""


class Batches:
    """Lays rows out for a session and runs them.

    Args:
        session: the loaded model.
        share: whether plans may read what rows share only once, where the session can.
    """

    def __init__(self, session: Session, *, share: bool = True) -> None:
        self._session = session
        layout = session.layout
        self._layout = layout if share else replace(layout, prefix_sharing=False, packing=False)
        self._row_limit: int | None = None
        self.turns = Turns()
        """Of the plugins, through whatever lane a batch goes out."""

    def plan(self, rows: Sequence[Row], also: Sequence[Sequence[Row]], kept: ModelInput | None) -> Plan:
        """How rows would be scored.

        Args:
            rows: distinct.
            also: rows with the same prompts and other targets, where each batch is read with those too.
            kept: what the session keeps by then.
        """
        made = plan(rows, self._layout, self._session.row_bytes, self._session.info.memory_budget, kept)
        return read_again(made, also, kept) if also else made

    def run(
        self, rows: Sequence[Row], read: Read, note: Callable[[str], None], also: Sequence[Sequence[Row]] = ()
    ) -> Iterator[tuple[Batch, Tensor, list[int]]]:
        """Batches as they were read, what was read of each, and how many tokens the model read for each of its rows.

        Where the session has several lanes, batches may come in any order, and ``read`` is called from several threads.

        Args:
            rows: distinct.
            read: called with each batch.
            note: told when memory ran out.
            also: rows with the same prompts and other targets, if ``read`` reads each batch with those too.

        Raises:
            BatchTooLargeError: not even one row fits into memory.
        """
        schedule = self.plan(rows, also, self._session.kept)
        lanes = self._layout.lanes
        if lanes > 1 and all(batch.independent for batch in schedule.batches):
            yield from self._in_lanes(schedule, read, note, lanes)
            return
        for batch in schedule.batches:
            size = self._row_limit or len(batch.rows)
            for start in range(0, len(batch.rows), size):
                part = batch.part(start, start + size)
                yield part, self._read(schedule, part, read, note), [schedule.costs[row] for row in part.rows]

    def _in_lanes(
        self, schedule: Plan, read: Read, note: Callable[[str], None], lanes: int
    ) -> Iterator[tuple[Batch, Tensor, list[int]]]:
        """As many batches as there are lanes at once; each result is named by its batch."""
        left = iter(schedule.batches)
        under_way: dict[Future[Tensor], Batch] = {}
        pool = ThreadPoolExecutor(lanes, thread_name_prefix="apportion-lane")
        try:
            while True:
                while len(under_way) < lanes and (batch := next(left, None)) is not None:
                    under_way[pool.submit(self._read, schedule, batch, read, note)] = batch
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    batch = under_way.pop(future)
                    yield batch, future.result(), [schedule.costs[row] for row in batch.rows]
        finally:
            # After an error or Ctrl-C nothing more goes out, and nothing is left behind.
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, schedule: Plan, batch: Batch, read: Read, note: Callable[[str], None]) -> Tensor:
        try:
            return read(schedule.scoring_batch(batch))
        except (BatchTooLargeError, torch.OutOfMemoryError) as error:
            if len(batch.rows) == 1:
                raise BatchTooLargeError(
                    f"A single prompt of {len(schedule.rows[batch.rows[0]].prompt)} tokens does not fit into the "
                    f"memory of {self._session.info.device}. Use a shorter prompt, a smaller dtype or another "
                    f"device. ({error})"
                ) from error
        # Outside the except block, so that the failed batch's tensors are free before the next try.
        half = len(batch.rows) // 2
        self._row_limit = min(half, self._row_limit or half)
        note(f"memory ran out on a batch of {len(batch.rows)} rows; went on with {half}")
        halves = (batch.part(0, half), batch.part(half, len(batch.rows)))
        return torch.cat([self._read(schedule, part, read, note) for part in halves])

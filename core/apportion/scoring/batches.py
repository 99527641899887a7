"""Rows through a session: planned, read batch by batch, halved where memory runs out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from apportion.errors import BatchTooLargeError
from apportion.protocols.backend import Session
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion.scoring.plan import Batch, Plan, plan, read_again

__all__ = ["Batches", "Read", "Turns"]

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
        left = deque(schedule.batches)
        if self._layout.lanes > 1 and all(batch.independent for batch in left):
            yield from self._in_lanes(schedule, left, read, note)
            return
        while left:
            batch = self._next(left)
            failure = None
            try:
                found = read(schedule.scoring_batch(batch))
            except (BatchTooLargeError, torch.OutOfMemoryError) as error:
                failure = str(error)
            # Outside the except block, so that the failed batch's tensors are free before the next try.
            if failure is not None:
                left.extendleft(self._halves(schedule, batch, failure, note))
                continue
            yield batch, found, [schedule.costs[row] for row in batch.rows]

    def _in_lanes(
        self, schedule: Plan, left: deque[Batch], read: Read, note: Callable[[str], None]
    ) -> Iterator[tuple[Batch, Tensor, list[int]]]:
        """As many batches as there are lanes at once; each result is named by its batch."""
        under_way: dict[Future[Tensor], Batch] = {}
        pool = ThreadPoolExecutor(self._layout.lanes, thread_name_prefix="apportion-lane")
        try:
            while left or under_way:
                while left and len(under_way) < self._layout.lanes:
                    batch = self._next(left)
                    under_way[pool.submit(read, schedule.scoring_batch(batch))] = batch
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    batch = under_way.pop(future)
                    error = future.exception()
                    if isinstance(error, BatchTooLargeError | torch.OutOfMemoryError):
                        left.extendleft(self._halves(schedule, batch, str(error), note))
                        continue
                    yield batch, future.result(), [schedule.costs[row] for row in batch.rows]
        finally:
            # After an error or Ctrl-C nothing more goes out, and nothing is left behind.
            pool.shutdown(wait=True, cancel_futures=True)

    def _next(self, left: deque[Batch]) -> Batch:
        """The next batch, or as much of it as is known to fit; the rest stays."""
        batch = left.popleft()
        if self._row_limit is not None and len(batch.rows) > self._row_limit:
            left.appendleft(batch.part(self._row_limit, len(batch.rows)))
            batch = batch.part(0, self._row_limit)
        return batch

    def _halves(self, schedule: Plan, batch: Batch, failure: str, note: Callable[[str], None]) -> list[Batch]:
        """What is read instead of a batch that did not fit, the second half first.

        Raises:
            BatchTooLargeError: it was a single row.
        """
        if len(batch.rows) == 1:
            raise BatchTooLargeError(
                f"A single prompt of {len(schedule.rows[batch.rows[0]].prompt)} tokens does not fit into the "
                f"memory of {self._session.info.device}. Use a shorter prompt, a smaller dtype or another "
                f"device. ({failure})"
            )
        half = len(batch.rows) // 2
        self._row_limit = min(half, self._row_limit or half)
        note(f"memory ran out on a batch of {len(batch.rows)} rows; went on with {half}")
        return [batch.part(half, len(batch.rows)), batch.part(0, half)]


class Turns:
    """A lock that is held while plugins work on a batch, and lent while the session scores it.

    So plugins are called one at a time, also where a session scores several batches at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = threading.local()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Nobody else's turn."""
        with self._lock:
            self._mine.held = True
            try:
                yield
            finally:
                self._mine.held = False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Others may take their turn meanwhile; outside a turn nothing happens."""
        if not getattr(self._mine, "held", False):
            yield
            return
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

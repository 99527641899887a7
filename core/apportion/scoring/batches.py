"""Batches of rows: planned, scored one by one, and halved when memory runs out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from apportion.errors import BatchTooLargeError, counted
from apportion.protocols.backend import Layout, Session
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion.scoring.lanes import in_lanes
from apportion.scoring.plan import Batch, Plan, plan, read_again

__all__ = ["Batches", "Read", "Turns"]

Read = Callable[[ScoringBatch], Tensor]
"""Returns one row of a tensor for each row of a batch."""


class Batches:
    """Plans batches of rows for a session, and runs them.

    Args:
        session: the loaded model.
        share: plans may read shared prefixes only once, if the session supports it.
    """

    def __init__(self, session: Session, *, share: bool = True) -> None:
        self._session = session
        self._share = share
        self._row_limit: int | None = None
        self.turns = Turns()
        """Lock of the plugins that work on a batch, in any lane."""

    @property
    def _layout(self) -> Layout:
        """The session's layout now: it may find out during a run that a shortcut gives other numbers."""
        layout = self._session.layout
        return layout if self._share else layout.without_sharing()

    def plan(self, rows: Sequence[Row], also: Sequence[Sequence[Row]], kept: ModelInput | None) -> Plan:
        """Plan how to score rows.

        Args:
            rows: distinct rows.
            also: rows with the same prompts and other targets, if each batch is also read with those.
            kept: tokens that the session will keep by then.
        """
        made = plan(rows, self._layout.of(rows), self._session.row_bytes, self._session.info.memory_budget, kept)
        return read_again(made, also, kept) if also else made

    def run(
        self, rows: Sequence[Row], read: Read, note: Callable[[str], None], also: Sequence[Sequence[Row]] = ()
    ) -> Iterator[tuple[Batch, Tensor, list[int]]]:
        """Score rows, and yield each batch with its scores and the number of tokens that the model read for each row.

        If the session has several lanes, batches may come in any order, and ``read`` is called from several threads.

        Args:
            rows: distinct rows.
            read: called with each batch.
            note: called with a message when memory runs out.
            also: rows with the same prompts and other targets, if ``read`` also reads each batch with those.

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
            # Outside the except block, so that the failed batch's tensors are freed before the next attempt.
            if failure is not None:
                left.extendleft(self._halves(schedule, batch, failure, note))
                continue
            yield batch, found, [schedule.costs[row] for row in batch.rows]

    def _in_lanes(
        self, schedule: Plan, left: deque[Batch], read: Read, note: Callable[[str], None]
    ) -> Iterator[tuple[Batch, Tensor, list[int]]]:
        """Run as many batches at once as there are lanes; each result comes with its batch.

        After an error, those under way come before it is raised, because they have been paid for.
        """
        failure: BaseException | None = None
        for batch, future in in_lanes(
            self._session,
            lambda: self._next(left) if left else None,
            lambda batch: read(schedule.scoring_batch(batch)),
        ):
            error = future.exception()
            if failure is None and isinstance(error, BatchTooLargeError | torch.OutOfMemoryError):
                left.extendleft(self._halves(schedule, batch, str(error), note))
            elif error is not None:
                failure = failure or error
                left.clear()
            else:
                yield batch, future.result(), [schedule.costs[row] for row in batch.rows]
        if failure is not None:
            raise failure

    def _next(self, left: deque[Batch]) -> Batch:
        """Take the next batch, or as much of it as is known to fit; the rest stays in the queue."""
        batch = left.popleft()
        if self._row_limit is not None and len(batch.rows) > self._row_limit:
            left.appendleft(batch.part(self._row_limit, len(batch.rows)))
            batch = batch.part(0, self._row_limit)
        return batch

    def _halves(self, schedule: Plan, batch: Batch, failure: str, note: Callable[[str], None]) -> list[Batch]:
        """Split a batch that did not fit; the second half comes first.

        Raises:
            BatchTooLargeError: the batch is a single row.
        """
        if len(batch.rows) == 1:
            raise BatchTooLargeError(
                f"A single prompt of {counted(len(schedule.rows[batch.rows[0]].prompt), 'token')} does not fit into "
                f"the memory of {self._session.info.device}. Use a shorter prompt, a smaller dtype or another device. "
                f"({failure})"
            )
        half = len(batch.rows) // 2
        self._row_limit = min(half, self._row_limit or half)
        note(f"memory ran out on a batch of {len(batch.rows)} rows; continued with {half}")
        return [batch.part(half, len(batch.rows)), batch.part(0, half)]


class Turns:
    """A lock that is held while plugins work on a batch, and released while the session scores it.

    So plugins are called one at a time, even if a session scores several batches at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mine = threading.local()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the lock."""
        with self._lock:
            self._mine.held = True
            try:
                yield
            finally:
                self._mine.held = False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Release the lock for others in the meantime; does nothing if this thread does not hold it."""
        if not getattr(self._mine, "held", False):
            yield
            return
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()

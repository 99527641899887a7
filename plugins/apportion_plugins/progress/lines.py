"""Progress as lines of text, for logs and pipes."""

from __future__ import annotations

import time
from collections.abc import Callable

from apportion.protocols.progress import Pace
from apportion_plugins.progress.rates import State, Timing

__all__ = ["ProgressLines"]


class ProgressLines:
    """A line every few seconds: what is done, of how many, how fast, and the remaining time.

    Args:
        write: takes each line.
        ends: write a line at the beginning and at the end as well; otherwise, short runs write nothing.
        clock: returns seconds.
    """

    def __init__(
        self, write: Callable[[str], None], *, ends: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._ends = ends
        self._pace = Pace(clock)
        self._timing = Timing(clock)
        self._first = True
        self._line = self._written = ""

    def show(self, state: State) -> None:
        """Write the current state if a line is due. A new label or total restarts the clock of the rate."""
        first, self._first = self._first, False
        self._timing.note(state)
        count = f"{state.label} {state.count}".rstrip()
        self._line = " · ".join([count, *self._timing.facts(), *([state.more] if state.more else [])])
        if self._pace.due() or (first and self._ends):
            self._put()

    def remove(self) -> None:
        """Write the last state, if lines mark the ends."""
        if self._ends and self._line != self._written:
            self._put()

    def _put(self) -> None:
        self._written = self._line
        self._write(self._line)

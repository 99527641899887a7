"""Events that a run reports while it works. Plugins display them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apportion.protocols.request import Request

__all__ = ["ALWAYS", "AUTO", "NEVER", "Pace", "ProgressEvent", "Report"]

AUTO, ALWAYS, NEVER = "auto", "always", "never"
"""When progress is shown. ``"auto"``: as a bar in terminals and notebooks, and elsewhere as lines if it takes a while.
``"always"``: the same, with a first and a last line there.
"""


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One step of a run, or of ``attribute_many``, whose runs take turns.

    Attributes:
        stage: ``"generate"``, ``"score"`` or ``"end"`` for a single run; ``"end"`` is reported even if the run failed.
            ``attribute_many`` also reports ``"items"``, at the start, after each batch and after each run, and
            ``"close"`` at the end, even after an error.
        done: number of rows scored in the current request for values; for ``"items"``, number of runs that have ended.
        total: number of rows in that request; for ``"items"``, number of runs, or 0 if unknown.
        share: for ``"items"``, what is done of the runs that have not ended, in runs; an estimate.
        evaluations: distinct model inputs scored so far in the whole run; for ``"items"``, in all runs.
        seconds: for ``"end"`` and ``"close"``, total wall-clock time in seconds.
        error: for ``"end"`` and ``"close"``, the error that ended it; ``None`` on success.
        request: the run's request; ``None`` until it is resolved, and for events about many runs.
        request_id: id of the run's request, from the first event on; empty for events about many runs.
    """

    stage: str
    done: int = 0
    total: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    error: BaseException | None = None
    request: Request | None = None
    request_id: str = ""
    share: float = 0.0


Report = Callable[[ProgressEvent], None]
"""Callback that receives a run's progress events."""


class Pace:
    """Says when the next line about a long run is due: every few seconds at first, then less and less often.

    Args:
        clock: returns seconds.
    """

    FIRST, LAST = 5.0, 60.0
    """Seconds between two lines, at the beginning and after twenty minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._written = clock()

    def due(self) -> bool:
        """True if it is time for a line, which is then taken to be written."""
        now = self._clock()
        wanted = min(self.LAST, max(self.FIRST, (now - self._began) / 20))
        if now - self._written < wanted:
            return False
        self._written = now
        return True

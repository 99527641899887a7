"""Events that a run reports while it works. Plugins display them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apportion.protocols.request import Request

__all__ = ["ProgressEvent", "Report"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One step of a run, or of ``attribute_many``, whose runs take turns.

    Attributes:
        stage: ``"generate"``, ``"score"`` or ``"end"`` for a single run; ``"end"`` is reported even if the run failed.
            ``attribute_many`` also reports ``"items"``, at the start, after each batch and after each run, and
            ``"close"`` at the end, even after an error.
        done: number of rows scored in the current request for values; for ``"items"``, number of runs that have ended.
        total: number of rows in that request; for ``"items"``, number of runs, or 0 if unknown.
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


Report = Callable[[ProgressEvent], None]
"""Callback that receives a run's progress events."""

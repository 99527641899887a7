"""What a run reports while it works. Showing it is a plugin's business."""

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
        stage: of a run ``"generate"``, ``"score"``, or ``"end"``, which closes it even when it failed. Around the runs
            of ``attribute_many`` ``"items"``, at its beginning, after each batch and after each run, and ``"close"``,
            however it ended.
        done: rows scored of the present request for values; with ``"items"``, runs that have ended.
        total: rows of that request; with ``"items"``, all runs, or 0 where nobody knows how many there will be.
        evaluations: distinct model inputs scored in the whole run so far; with ``"items"``, in all of them.
        seconds: with the stages ``"end"`` and ``"close"``, wall-clock time of the whole.
        error: with the stages ``"end"`` and ``"close"``, what ended it; ``None`` when it succeeded.
        request: what the run was asked; ``None`` before that is resolved, and where the event is about many runs.
        request_id: the id of the run's request, from its first event on; empty where the event is about many runs.
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
"""Where a run sends its progress."""

"""What a run reports while it works. Showing it is a plugin's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ProgressEvent", "Report"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One step of a run.

    Attributes:
        stage: ``"generate"``, ``"score"``, or ``"end"``, which closes a run even when it failed.
        done: rows scored of the present request for values.
        total: rows of that request.
        evaluations: distinct model inputs scored in the whole run so far.
        seconds: with the stage ``"end"``, wall-clock time of the whole run.
        error: with the stage ``"end"``, what ended the run; ``None`` when it succeeded.
    """

    stage: str
    done: int = 0
    total: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    error: BaseException | None = None


Report = Callable[[ProgressEvent], None]
"""Where a run sends its progress."""

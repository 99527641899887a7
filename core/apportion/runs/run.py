"""A run under way, and what its method asks of the session."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from apportion.game.game import Memory
from apportion.protocols.progress import ProgressEvent, Report
from apportion.scoring.scorer import Scorer, Tally

if TYPE_CHECKING:
    from apportion.protocols.inputs import ModelInput
    from apportion.protocols.request import Request

__all__ = ["Ask", "Call", "Question", "Run", "Scoring", "answered"]


@dataclass(slots=True)
class Run:
    """One run, from its first moment on.

    Attributes:
        watch: where its progress goes.
        request: what was asked; ``None`` until everything is resolved.
        memory: every value that was scored.
        tally: what it cost so far.
        before: seconds that were spent by the run that it goes on from.
        started: on the clock of ``time.perf_counter``.
    """

    watch: Report
    request: Request | None = None
    memory: Memory = field(default_factory=Memory)
    tally: Tally = field(default_factory=Tally)
    before: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def resolved(self) -> Request:
        """The request of a run that has one."""
        assert self.request is not None
        return self.request

    @property
    def seconds(self) -> float:
        """Since it started."""
        return time.perf_counter() - self.started

    def report(self, event: ProgressEvent) -> None:
        """Tell observers, and whose run it is."""
        self.watch(replace(event, request=self.request))


@runtime_checkable
class Question(Protocol):
    """What a method needs from the session while it runs."""

    def answer(self) -> Tensor:
        """Ask the session now."""
        ...


@dataclass(frozen=True, slots=True)
class Scoring:
    """Values of inputs. Where log-probabilities are enough, they may be read together with those of other runs."""

    scorer: Scorer
    inputs: Sequence[ModelInput]

    def answer(self) -> Tensor:
        """Score them now."""
        return self.scorer(self.inputs)


@dataclass(frozen=True, slots=True)
class Call:
    """Anything else, which no two runs have in common."""

    function: Callable[[], Tensor]

    def answer(self) -> Tensor:
        """Call it now."""
        return self.function()


Ask = Callable[[Question], Tensor]
"""How the questions of a run reach the session."""


def answered(question: Question) -> Tensor:
    """Straight away, for a run that is alone."""
    return question.answer()

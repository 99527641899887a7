"""Runs: one under way, what its method asks of the session, and those that ended."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from torch import Tensor

from apportion.errors import InputError
from apportion.game.game import Memory
from apportion.protocols.progress import ProgressEvent, Report
from apportion.results.attribution import Attribution
from apportion.scoring.scorer import Scorer, Tally

if TYPE_CHECKING:
    from apportion.protocols.inside import InsideSession
    from apportion.protocols.request import Request
    from apportion.protocols.row import ModelInput
    from apportion.scoring.readout import Readout

__all__ = ["Ask", "Call", "EmbeddedScoring", "Past", "PastRuns", "Question", "Run", "Scoring", "Tracing", "answered"]


@dataclass(slots=True)
class Run:
    """One run, from its first moment on.

    Attributes:
        watch: where its progress goes.
        id: its name in events, hooks and logs.
        request: what was asked; ``None`` until everything is resolved.
        memory: every value that was scored.
        tally: what it cost so far.
        before: seconds that were spent by the run that it goes on from.
        started: on the clock of ``time.perf_counter``.
    """

    watch: Report
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
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
        self.watch(replace(event, request=self.request, request_id=self.id))


@dataclass(frozen=True, slots=True)
class Past:
    """A run that ended well.

    Attributes:
        request: what was asked.
        tally: what it cost.
        memory: every value that was scored.
        seconds: how long it took.
    """

    request: Request
    tally: Tally
    memory: Memory
    seconds: float


class PastRuns:
    """Runs by their results."""

    def __init__(self) -> None:
        self._runs: WeakKeyDictionary[Attribution, Past] = WeakKeyDictionary()

    def keep(self, result: Attribution, run: Past) -> None:
        """Keep a run until its result is gone."""
        self._runs[result] = run

    def of(self, result: Attribution) -> Past:
        """The run that made this result.

        Raises:
            InputError: it was made by another explainer, or read from a file.
        """
        if not isinstance(result, Attribution):
            raise InputError(f"A result of `attribute` is needed, not {type(result).__name__}: {result!r:.80}.")
        found = self._runs.get(result)
        if found is None:
            raise InputError(
                "This result was not made by this explainer (it was read from a file, copied, or made by another "
                "explainer), so what it scored is not at hand. Run attribute() again with the same arguments; with "
                "Explainer(cache=True) nothing is scored twice."
            )
        return found


@runtime_checkable
class Question(Protocol):
    """Something that a method needs from the session while it runs."""

    def answer(self) -> Any:
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
class EmbeddedScoring:
    """Values of prompts that are given by their input embeddings, for gradient methods."""

    session: InsideSession
    readout: Readout
    scorer: Scorer
    embedded: Tensor

    @property
    def tokens(self) -> int:
        """Tokens that the model reads."""
        rows, prompt, _ = self.embedded.shape
        return int(rows * sum(prompt + len(target) - 1 for target in self.readout.targets))

    def answer(self) -> Tensor:
        """Score them now, and count it."""
        self.readout.prepare(self.scorer.score)
        values = self.readout.of_embeddings(self.session, self.embedded)
        self.scorer.count(len(self.embedded), self.tokens)
        return values


@dataclass(frozen=True, slots=True)
class Tracing:
    """Internals of one forward."""

    session: InsideSession
    scorer: Scorer
    ids: tuple[int, ...]
    hidden: bool
    attentions: bool
    modules: tuple[str, ...]

    def answer(self) -> Any:
        """Trace it now, and count it."""
        found = self.session.trace(self.ids, hidden=self.hidden, attentions=self.attentions, modules=self.modules)
        self.scorer.count(1, len(self.ids))
        return found


@dataclass(frozen=True, slots=True)
class Call:
    """Anything else, which no two runs have in common and which does not count."""

    function: Callable[[], Tensor]

    def answer(self) -> Tensor:
        """Call it now."""
        return self.function()


Ask = Callable[[Question], Any]
"""The way in which the questions of a run reach the session."""


def answered(question: Question) -> Any:
    """Straight away, for a run that is alone."""
    return question.answer()

"""Runs in progress, the questions that their methods ask the session, and runs that have ended."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.game.game import Memory
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.progress import ProgressEvent, Report
from apportion.protocols.row import ModelInput, Row
from apportion.rendering.spelling import Spelling
from apportion.results.attribution import Attribution
from apportion.runs.step_record import StepRecord
from apportion.scoring.readout import FlatLogits
from apportion.scoring.scorer import Scorer, Tally
from apportion.scoring.text_scorer import TextScorer
from apportion.scoring.text_source import Archive

if TYPE_CHECKING:
    from apportion.protocols.request import Request

__all__ = ["Ask", "Call", "Past", "PastRuns", "Question", "Reading", "Run", "Scoring", "Writing", "answered"]


@dataclass(slots=True)
class Run:
    """One run, from its start.

    Attributes:
        watch: receives its progress events.
        id: its id in events, hooks and logs.
        request: its request; ``None`` until everything is resolved.
        fingerprint: fingerprint of the model at the start.
        memory: all values that were scored.
        tally: its cost so far.
        spellings: other spellings of its target and contrast, to compare with at the end.
        steps: its step scores.
        archive: texts that the model wrote.
        text_values: values of these texts.
        trial: nothing is run for its result; only the cost is of interest.
        extra_texts: number of texts that are written before the method runs, and do not count as evaluations.
        before: seconds that the runs before it took, if it continues another one.
        started: its start time, from ``time.perf_counter``.
    """

    watch: Report
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    request: Request | None = None
    fingerprint: str = ""
    memory: Memory = field(default_factory=Memory)
    tally: Tally = field(default_factory=Tally)
    spellings: Sequence[Spelling] = ()
    steps: StepRecord = field(default_factory=StepRecord)
    archive: Archive = field(default_factory=Archive)
    text_values: dict[str, float] = field(default_factory=dict)
    trial: bool = False
    extra_texts: int = 0
    before: float = 0.0
    started: float = field(default_factory=lambda: time.perf_counter())

    def go_on_from(self, past: Past) -> None:
        """Take over everything that an earlier run has scored and written."""
        self.memory, self.archive, self.text_values = past.memory, past.archive, past.text_values

    @property
    def resolved(self) -> Request:
        """The request, once it is resolved."""
        assert self.request is not None
        return self.request

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def report(self, event: ProgressEvent) -> None:
        """Report an event to observers, with the run's request and id."""
        self.watch(replace(event, request=self.request, request_id=self.id))


@dataclass(frozen=True, slots=True)
class Past:
    """A run that succeeded.

    Attributes:
        request: its request.
        tally: its cost.
        memory: all values of coalitions that were scored.
        seconds: its duration in seconds.
        forgotten: number of evaluations whose values are not in the memory.
        asked: the inputs that it, and the runs that it continued, queried.
        steps: its step scores.
        archive: texts that the model wrote.
        text_values: values of these texts.
    """

    request: Request
    tally: Tally
    memory: Memory
    seconds: float
    forgotten: int = 0
    asked: frozenset[Hashable] = frozenset()
    steps: StepRecord = field(default_factory=StepRecord)
    archive: Archive = field(default_factory=Archive)
    text_values: dict[str, float] = field(default_factory=dict)

    def check_larger(self, result: Attribution, request: Request) -> None:
        """Refuse a request that cannot continue this run, or would only repeat its result.

        Args:
            result: the result of this run.
            request: the same request with a larger budget.

        Raises:
            InputError: the result is exact, or the run's evaluations are not kept.
        """
        if self.forgotten:
            raise InputError(
                f"A run of the method {request.method_name!r} cannot be continued: it evaluates more than coalitions, "
                "and only their values are kept. Run attribute() with the larger budget instead."
            )
        if result.std_error is None and request.method_name == result.provenance.method:
            raise InputError(
                "This result is exact, so there is nothing to refine: a larger budget would give the same values."
            )


class PastRuns:
    """Past runs, by their results."""

    def __init__(self) -> None:
        self._runs: WeakKeyDictionary[Attribution, Past] = WeakKeyDictionary()

    def keep(self, result: Attribution, run: Past) -> None:
        """Keep a run for as long as its result lives."""
        self._runs[result] = run

    def of(self, result: Attribution) -> Past | None:
        """Return the run that made this result; ``None`` if it was read from a file, copied, or made elsewhere."""
        return self._runs.get(result)


@runtime_checkable
class Question(Protocol):
    """A request of a running method to the session."""

    def answer(self) -> Any:
        """Get the answer from the session now."""
        ...


@dataclass(frozen=True, slots=True)
class Scoring:
    """Scoring of inputs; if log-probabilities suffice, they may be read together with those of other runs."""

    scorer: Scorer
    inputs: Sequence[ModelInput]

    def answer(self) -> Tensor:
        """Score the inputs now."""
        return self.scorer(self.inputs)


@dataclass(frozen=True, slots=True)
class Writing:
    """Scoring of inputs by the texts that the model writes after them."""

    scorer: TextScorer
    inputs: Sequence[ModelInput]

    def answer(self) -> Tensor:
        """Write and score the texts now."""
        return self.scorer(self.inputs)


@dataclass(frozen=True, slots=True)
class Reading:
    """Reading of one prompt and target, for the logits that predict the target's tokens."""

    scorer: Scorer
    prompt: ModelInput

    @property
    def row(self) -> Row:
        """The row that the model reads."""
        return Row(self.prompt.ids, self.scorer.readout.targets[0], self.prompt.media)

    def answer(self) -> Float[Tensor, "1 T V"]:
        """Read the row now, and count it as one evaluation."""
        self.scorer.check([self.prompt])
        flat = self.scorer.score(ScoringBatch((self.row,)), FlatLogits())
        self.scorer.count(1, len(self.row.read))
        return flat.reshape(1, len(self.row.target), -1)


@dataclass(frozen=True, slots=True)
class Call:
    """Any other call, which runs cannot share and which does not count as an evaluation."""

    function: Callable[[], Any]

    def answer(self) -> Any:
        """Call the function now."""
        return self.function()


Ask = Callable[[Question], Any]
"""Function that takes the questions of a run to the session."""


def answered(question: Question) -> Any:
    """Answer immediately, for a single run."""
    return question.answer()

"""Many prompts: runs that take turns, so that what they ask is scored in the same batches."""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from apportion.errors import ApportionError, InputError
from apportion.options import whole_number
from apportion.protocols.progress import ProgressEvent, Report
from apportion.runs.coroutine import questions_of
from apportion.runs.run import Ask, Question, Run, Scoring
from apportion.scoring.batches import Batches
from apportion.scoring.scorer import Inquiry, read_together

if TYPE_CHECKING:
    from apportion.game.game import Game
    from apportion.protocols.methods import Estimate
    from apportion.results.attribution import Attribution

__all__ = ["Pipeline", "arguments_of", "attributions"]

Found = TypeVar("Found")

Talk = Generator[Question, Tensor, tuple["Estimate", "Game"]]

REACH = 4
"""Times ``at_once``: how far runs may get ahead of one that takes long, whose result is waited for."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages of a run, as the explainer has them.

    Attributes:
        resolve: gives a run its request, from the arguments of ``attribute``; the run begins.
        estimate: runs its method, whose questions go through the function given.
        finish: makes the result.
        end: tells observers how it ended.
        close: after the last run: the session lets go of what it kept.
        report: where the progress of all goes.
        batches: lays out what the runs ask.
    """

    resolve: Callable[[Run, Mapping[str, Any]], None]
    estimate: Callable[[Run, Ask], tuple[Estimate, Game]]
    finish: Callable[[Run, Estimate, Game], Attribution]
    end: Callable[[Run, BaseException | None], None]
    close: Callable[[], None]
    report: Report
    batches: Batches


def attributions(
    pipeline: Pipeline,
    prompts: object,
    shared: Mapping[str, Any],
    *,
    at_once: int,
    on_error: str,
    on_finish: Callable[[int, Attribution | Exception], None] | None,
) -> Iterator[Attribution | Exception]:
    """The results of many prompts, in their order; nothing begins before the first is asked for.

    Raises:
        InputError: now, arguments that cannot work; later, what is wrong with an item, if errors are raised.
    """
    at_once = whole_number("at_once", at_once, least=1)
    if on_error not in ("raise", "return"):
        raise InputError(f"on_error={on_error!r} must be 'raise' or 'return'.")
    if on_finish is not None and not callable(on_finish):
        raise InputError(f"on_finish={on_finish!r} must be callable, with a number and an outcome.")
    if "prompt" in shared:
        raise InputError("attribute_many takes the prompts as its first argument; prompt= is for one item.")
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
        raise InputError(f"attribute_many takes a list (or any iterable) of prompts, not {prompts!r:.80}.")
    if hasattr(prompts, "columns"):
        raise InputError(
            f"attribute_many takes prompts, and a {type(prompts).__name__} would give its columns. Pass its rows, such "
            "as df.to_dict('records') with a column called 'prompt'."
        )
    runs = _Runs(pipeline, prompts, shared, at_once, stops=on_error == "raise")
    return _closed_at_exit(_in_order(runs.outcomes(), on_error == "raise", on_finish))


def arguments_of(item: object, shared: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of ``attribute`` for an item: a prompt, or a mapping of arguments that go before the shared ones.

    Raises:
        InputError: a mapping without a prompt, or with keys that are no texts.
    """
    if not isinstance(item, Mapping):
        return {**shared, "prompt": item}
    if "prompt" not in item or not all(isinstance(name, str) for name in item):
        raise InputError(
            f"A dict in place of a prompt holds arguments of attribute(), of which 'prompt' is one: {dict(item)!r:.80}."
        )
    return {**shared, **item}


def _in_order(
    outcomes: Generator[tuple[int, Attribution | Exception], None, None],
    raises: bool,
    on_finish: Callable[[int, Attribution | Exception], None] | None,
) -> Generator[Attribution | Exception, None, None]:
    """Outcomes in the order of their numbers; an error is raised when it is its turn."""
    held: dict[int, Attribution | Exception] = {}
    turn = 0
    with closing(outcomes):
        for number, outcome in outcomes:
            if on_finish is not None:
                on_finish(number, outcome)
            held[number] = outcome
            while turn in held:
                found = held.pop(turn)
                if raises and isinstance(found, Exception):
                    # Raised where the runs are, so that observers hear what ended them.
                    outcomes.throw(_numbered(found, turn))
                yield found
                turn += 1


def _closed_at_exit(iterator: Generator[Found, None, None]) -> Generator[Found, None, None]:
    """Left open, it is closed before the interpreter takes away what its threads need."""

    def close() -> None:
        left = alive()
        if left is not None:
            left.close()

    alive = weakref.ref(iterator, lambda _: atexit.unregister(close))
    atexit.register(close)
    return iterator


def _numbered(error: Exception, number: int) -> Exception:
    """The same error, and whose it is."""
    if isinstance(error, ApportionError):
        error.args = (f"Item {number} (the first is 0): {error}",)
    else:
        error.add_note(f"This happened in item {number} of attribute_many (the first is 0).")
    return error


@dataclass(slots=True)
class _Flight:
    """A run under way: its number, and what it asks at the moment."""

    number: int
    run: Run
    talk: Talk | None = None
    question: Question | None = None


class _Runs:
    """Up to ``at_once`` runs, each in a thread of its own that waits for answers. One thread runs at a time.

    When all of them wait, the caller's thread lays out what they ask in one plan and scores it.

    Args:
        pipeline: of each run.
        items: prompts, or mappings of arguments.
        shared: arguments of all.
        at_once: the most runs under way.
        stops: after an error nothing more begins, and what comes after that item is given up.
    """

    def __init__(
        self, pipeline: Pipeline, items: Iterable[object], shared: Mapping[str, Any], at_once: int, *, stops: bool
    ) -> None:
        self._pipeline = pipeline
        self._items = enumerate(items)
        self._total = len(items) if isinstance(items, Sized) else 0
        self._shared = shared
        self._at_once = at_once
        self._stops = stops
        self._more = True
        self._broken: Exception | None = None
        self._flights: dict[int, _Flight] = {}
        self._ended = self._evaluations = self._begun_runs = 0

    def outcomes(self) -> Generator[tuple[int, Attribution | Exception], None, None]:
        """Numbers and results or errors, each as soon as it is there."""
        started = time.perf_counter()
        ended_by: BaseException | None = None
        self._report()
        try:
            while True:
                yield from self._begun()
                if not self._flights:
                    break
                yield from self._answered()
            if self._broken is not None:
                raise self._broken
        except GeneratorExit:
            raise
        except BaseException as error:
            ended_by = error
            raise
        finally:
            self._give_up(list(self._flights.values()), ended_by)
            self._pipeline.close()
            self._pipeline.report(
                ProgressEvent(
                    "close",
                    self._ended,
                    self._total,
                    self._evaluations,
                    seconds=time.perf_counter() - started,
                    error=ended_by,
                )
            )

    def _begun(self) -> Iterator[tuple[int, Attribution | Exception]]:
        """Let runs begin while there is room; some end at once."""
        while self._more and len(self._flights) < self._at_once:
            ahead = next(iter(self._flights), None)
            if ahead is not None and self._ended + len(self._flights) - ahead >= REACH * self._at_once:
                return
            number, item = self._next()
            if number < 0:
                self._more = False
                return
            self._begun_runs += 1
            flight = _Flight(number, Run(self._watch))
            self._flights[number] = flight
            try:
                self._pipeline.resolve(flight.run, arguments_of(item, self._shared))
            except Exception as error:
                yield self._landed(flight, error)
                continue
            flight.talk = questions_of(_asking(self._pipeline.estimate, flight.run))
            yield from self._advanced(flight, flight.talk.__next__)

    def _next(self) -> tuple[int, object]:
        """The next item; −1 when there is none. Where prompts break off with an error, what is under way is ended."""
        try:
            return next(self._items, (-1, None))
        except Exception as error:
            error.add_note(f"The prompts of attribute_many ended with this error after {self._begun_runs} of them.")
            self._broken = error
            return -1, None

    def _answered(self) -> Iterator[tuple[int, Attribution | Exception]]:
        """Answer all that wait, in the order of their numbers, and let each run up to its next question."""
        flights = list(self._flights.values())
        answers = self._answers(flights)
        for flight in flights:
            answer, talk = answers[flight.number], flight.talk
            # Another that failed may have ended it meanwhile.
            if talk is None or flight.number not in self._flights:
                continue
            if isinstance(answer, Exception):
                yield from self._advanced(flight, _call(talk.throw, answer))
            else:
                yield from self._advanced(flight, _call(talk.send, answer))

    def _answers(self, flights: list[_Flight]) -> dict[int, Tensor | Exception]:
        """What each is told: values, or why there are none."""
        answers: dict[int, Tensor | Exception] = {}
        inquiries: dict[int, Inquiry] = {}
        for flight in flights:
            question = flight.question
            assert question is not None
            try:
                if isinstance(question, Scoring) and question.scorer.shares:
                    inquiries[flight.number] = question.scorer.inquire(question.inputs)
                else:
                    answers[flight.number] = question.answer()
            except Exception as error:
                answers[flight.number] = error
        for number, failure in self._read(inquiries).items():
            answers[number] = failure
        for number, inquiry in inquiries.items():
            if number not in answers:
                try:
                    answers[number] = inquiry.values()
                except Exception as error:
                    answers[number] = error
        return answers

    def _read(self, inquiries: Mapping[int, Inquiry]) -> dict[int, Exception]:
        """Read what is asked, together; if that fails, each by itself, to see whose failure it is."""
        try:
            read_together(list(inquiries.values()), self._pipeline.batches)
            return {}
        except Exception as error:
            if len(inquiries) == 1:
                return dict.fromkeys(inquiries, error)
        failures: dict[int, Exception] = {}
        for number, inquiry in inquiries.items():
            try:
                read_together([inquiry], self._pipeline.batches)
            except Exception as error:
                failures[number] = error
        return failures

    def _advanced(self, flight: _Flight, step: Callable[[], Question]) -> Iterator[tuple[int, Attribution | Exception]]:
        """Let a run go on up to its next question; if it ends instead, its outcome."""
        try:
            flight.question = step()
            return
        except StopIteration as stop:
            estimate, game = stop.value
        except Exception as error:
            yield self._landed(flight, error)
            return
        try:
            result = self._pipeline.finish(flight.run, estimate, game)
        except Exception as error:
            yield self._landed(flight, error)
            return
        yield self._landed(flight, result)

    def _landed(self, flight: _Flight, outcome: Attribution | Exception) -> tuple[int, Attribution | Exception]:
        failed = outcome if isinstance(outcome, Exception) else None
        del self._flights[flight.number]
        self._ended += 1
        self._evaluations += flight.run.tally.evaluations
        self._pipeline.end(flight.run, failed)
        if failed is not None and self._stops:
            self._more = False
            self._give_up([later for number, later in self._flights.items() if number > flight.number], None)
        self._report()
        return flight.number, outcome

    def _give_up(self, flights: list[_Flight], ended_by: BaseException | None) -> None:
        """End runs that nobody waits for any more; their threads are gone afterwards."""
        interrupted = isinstance(ended_by, KeyboardInterrupt)
        why = ended_by if interrupted else GeneratorExit("attribute_many ended before this run did")
        for flight in flights:
            del self._flights[flight.number]
            self._evaluations += flight.run.tally.evaluations
            if flight.talk is not None:
                flight.talk.close()
            self._pipeline.end(flight.run, why)

    def _watch(self, event: ProgressEvent) -> None:
        self._pipeline.report(event)
        self._report()

    def _report(self) -> None:
        evaluations = self._evaluations + sum(flight.run.tally.evaluations for flight in self._flights.values())
        self._pipeline.report(ProgressEvent("items", self._ended, self._total, evaluations))


def _asking(estimate: Callable[[Run, Ask], tuple[Estimate, Game]], run: Run) -> Callable[[Ask], tuple[Estimate, Game]]:
    return lambda ask: estimate(run, ask)


def _call(function: Callable[..., Question], argument: object) -> Callable[[], Question]:
    return lambda: function(argument)

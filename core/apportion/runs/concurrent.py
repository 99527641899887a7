"""Concurrent runs of many prompts. They take turns, so that their inputs are scored in the same batches."""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from apportion.errors import ApportionError, InputError, ServerError, shown
from apportion.functions import failures_of
from apportion.game.method_runner import run_method
from apportion.options import whole_number
from apportion.protocols.progress import ProgressEvent
from apportion.runs.advice import advice_on_prompt
from apportion.runs.coroutine import questions_of
from apportion.runs.run import Ask, Question, Run, Scoring, Writing
from apportion.runs.stages import Stages
from apportion.scoring.batches import Batches
from apportion.scoring.scorer import PendingScores, read_together

if TYPE_CHECKING:
    from apportion.game.game import Game
    from apportion.protocols.methods import Estimate
    from apportion.results.attribution import Attribution

__all__ = ["arguments_of", "attributions", "check_many", "closed_at_exit", "in_order"]

Found = TypeVar("Found")

Conversation = Generator[Question, Tensor, tuple["Estimate", "Game"]]

REACH = 4
"""Limit, as a multiple of ``at_once``, on how far other runs may get ahead of a slow one."""


def attributions(
    stages: Stages,
    prompts: object,
    shared: Mapping[str, Any],
    *,
    at_once: int,
    on_error: str,
    on_finish: Callable[[int, Attribution | Exception], None] | None,
) -> Iterator[Attribution | Exception]:
    """Yield the results of many prompts, in order; nothing starts until the first is requested.

    Raises:
        InputError: the arguments are invalid, immediately; or an item is invalid, during iteration, if errors are
            raised.
    """
    items = check_many(prompts, shared, at_once=at_once, on_error=on_error, on_finish=on_finish)
    runs = _Runs(stages, items, shared, int(at_once), stops=on_error == "raise")
    return closed_at_exit(in_order(runs.outcomes(), on_error == "raise", on_finish))


def check_many(
    prompts: object, shared: Mapping[str, Any], *, at_once: int, on_error: str, on_finish: object
) -> Iterable[object]:
    """The prompts of ``attribute_many``, whose arguments are checked.

    Raises:
        InputError: an argument is invalid.
    """
    whole_number("at_once", at_once, least=1)
    if on_error not in ("raise", "return"):
        raise InputError(f"on_error={shown(on_error)} must be 'raise' or 'return'.")
    if on_finish is not None and not callable(on_finish):
        raise InputError(f"on_finish={on_finish!r} must be a function of a number and a result or error.")
    if "prompt" in shared:
        raise InputError("attribute_many takes the prompts as its first argument; prompt= is for one item.")
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
        raise InputError(f"attribute_many takes a list (or any iterable) of prompts, not {shown(prompts)}.")
    if hasattr(prompts, "columns"):
        raise InputError(
            f"attribute_many takes prompts, but iterating over a {type(prompts).__name__} yields its columns. Pass its "
            "rows, such as df.to_dict('records') with a column called 'prompt'."
        )
    return prompts


def arguments_of(item: object, shared: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of ``attribute`` for an item: a prompt, or a mapping of arguments that override the shared ones.

    Raises:
        InputError: a mapping has no prompt, or has keys that are not strings.
    """
    if not isinstance(item, Mapping):
        return {**shared, "prompt": item}
    if "prompt" not in item or not all(isinstance(name, str) for name in item):
        raise InputError(
            f"A dict in place of a prompt must hold arguments of attribute(), including 'prompt': {dict(item)!r:.80}. "
            f"{advice_on_prompt(item)}".rstrip()
        )
    return {**shared, **item}


def in_order(
    outcomes: Generator[tuple[int, Attribution | Exception], None, None],
    raises: bool,
    on_finish: Callable[[int, Attribution | Exception], None] | None,
) -> Generator[Attribution | Exception, None, None]:
    """Yield outcomes in the order of their numbers; an error is raised when its turn comes."""
    held: dict[int, Attribution | Exception] = {}
    turn = 0
    with closing(outcomes):
        for number, outcome in outcomes:
            if on_finish is not None:
                with failures_of(on_finish, "on_finish", partial("the outcome of item {}".format, number)):
                    on_finish(number, outcome)
            held[number] = outcome
            while turn in held:
                found = held.pop(turn)
                if raises and isinstance(found, Exception):
                    # Raise it inside the generator of the runs, so that observers see the error that ended them.
                    outcomes.throw(_numbered(found, turn))
                yield found
                turn += 1


def closed_at_exit(iterator: Generator[Found, None, None]) -> Generator[Found, None, None]:
    """Close an open iterator at exit, before the interpreter tears down what its threads need."""

    def close() -> None:
        left = alive()
        if left is not None:
            left.close()

    alive = weakref.ref(iterator, lambda _: atexit.unregister(close))
    atexit.register(close)
    return iterator


def _numbered(error: Exception, number: int) -> Exception:
    """Add the number of the item to an error."""
    if isinstance(error, ApportionError):
        error.args = (f"In prompts[{number}]: {error}",)
    else:
        error.add_note(f"This happened in prompts[{number}] of attribute_many.")
    return error


@dataclass(slots=True)
class _ActiveRun:
    """A run in progress, with its number, its pending question, and the evaluations that it will have taken then."""

    number: int
    run: Run
    conversation: Conversation | None = None
    question: Question | None = None
    goal: int = 0

    @property
    def taken(self) -> int:
        """Evaluations so far."""
        return self.run.tally.evaluations + self.run.tally.cached

    def share(self, usual: float) -> float:
        """Estimated part of the run that is done; below 1.

        Args:
            usual: evaluations of a run; 0 if unknown.
        """
        request = self.run.request
        if request is None:
            return 0.0
        if request.budget is not None:
            usual = min(request.budget, 2.0 ** min(60, len(request.adapter.features)) * request.renderer.draws)
        return min(0.99, self.taken / max(usual, self.goal, 1))


class _Runs:
    """Up to ``at_once`` runs, each in its own thread, which waits for answers. Only one thread runs at a time.

    When all of them are waiting, the caller's thread scores their inputs under one plan.

    Args:
        stages: stages of each run.
        items: prompts, or mappings of arguments.
        shared: arguments for all items.
        at_once: maximum number of runs in progress.
        stops: after an error, start no more runs, and abandon runs of later items.
    """

    def __init__(
        self, stages: Stages, items: Iterable[object], shared: Mapping[str, Any], at_once: int, *, stops: bool
    ) -> None:
        self._stages = stages
        self._batches: Batches = stages.batches()
        self._items = enumerate(items)
        self._total = len(items) if isinstance(items, Sized) else 0
        self._shared = shared
        self._at_once = at_once
        self._stops = stops
        self._more = True
        self._broken: Exception | None = None
        self._active: dict[int, _ActiveRun] = {}
        self._ended = self._evaluations = self._taken = self._begun_runs = 0

    def outcomes(self) -> Generator[tuple[int, Attribution | Exception], None, None]:
        """Yield the number and the result or error of each run as soon as it ends."""
        started = time.perf_counter()
        ended_by: BaseException | None = None
        self._report()
        # The model may have changed since these runs were asked for.
        self._stages.release()
        self._batches = self._stages.batches()
        try:
            while True:
                yield from self._begun()
                if not self._active:
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
            self._give_up(list(self._active.values()), ended_by)
            self._stages.release()
            self._stages.report(
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
        """Start runs while there is room, and yield outcomes of those that end immediately."""
        while self._more and len(self._active) < self._at_once:
            ahead = next(iter(self._active), None)
            if ahead is not None and self._ended + len(self._active) - ahead >= REACH * self._at_once:
                return
            number, item = self._next()
            if number < 0:
                self._more = False
                return
            self._begun_runs += 1
            one = _ActiveRun(number, Run(self._watch))
            self._active[number] = one
            try:
                draft = self._stages.resolve(one.run, arguments_of(item, self._shared))
                self._stages.generate(one.run, draft)
                self._stages.begin(one.run)
            except Exception as error:
                yield self._landed(one, error)
                continue
            one.conversation = questions_of(self._estimating(one.run))
            yield from self._advanced(one, one.conversation.__next__)

    def _estimating(self, run: Run) -> Callable[[Ask], tuple[Estimate, Game]]:
        """A function that runs the method and sends its questions to ``ask``."""

        def estimate(ask: Ask) -> tuple[Estimate, Game]:
            self._stages.record_steps(run, self._batches, ask)
            game = self._stages.game(run, self._batches, ask)
            estimate = run_method(run.resolved, game)
            self._stages.compare_spellings(run, game, self._batches, ask)
            return estimate, game

        return estimate

    def _next(self) -> tuple[int, object]:
        """Return the next item, or −1 if there is none. If the iterable fails, runs in progress are finished first."""
        try:
            return next(self._items, (-1, None))
        except Exception as error:
            error.add_note(f"The prompts of attribute_many ended with this error after {self._begun_runs} of them.")
            self._broken = error
            return -1, None

    def _answered(self) -> Iterator[tuple[int, Attribution | Exception]]:
        """Answer all waiting runs, in the order of their numbers, and advance each to its next question."""
        active = list(self._active.values())
        answers = self._answers(active)
        for one in active:
            answer, conversation = answers[one.number], one.conversation
            # Another run that failed may have ended this one in the meantime.
            if conversation is None or one.number not in self._active:
                continue
            if isinstance(answer, Exception):
                yield from self._advanced(one, _call(conversation.throw, answer))
            else:
                yield from self._advanced(one, _call(conversation.send, answer))

    def _answers(self, active: list[_ActiveRun]) -> dict[int, Tensor | Exception]:
        """The answer to each run: values, or the error that prevented them."""
        answers: dict[int, Tensor | Exception] = {}
        pending: dict[int, PendingScores] = {}
        for one in active:
            question = one.question
            assert question is not None
            try:
                if isinstance(question, Scoring):
                    one.goal = one.taken + len(question.inputs)
                    pending[one.number] = question.scorer.pending(question.inputs)
                    continue
                if isinstance(question, Writing):
                    one.goal = one.taken + len(question.inputs)
                answers[one.number] = question.answer()
            except Exception as error:
                answers[one.number] = error
        for number, failure in self._read(pending).items():
            answers[number] = failure
        for number, scores in pending.items():
            if number not in answers:
                try:
                    answers[number] = scores.values()
                except Exception as error:
                    answers[number] = error
        return answers

    def _read(self, pending: Mapping[int, PendingScores]) -> dict[int, Exception]:
        """Score all pending inputs together; if that fails, score each run's separately to find the failing run."""
        try:
            read_together(list(pending.values()), self._batches)
            return {}
        except ServerError:
            raise
        except Exception as error:
            if len(pending) == 1:
                return dict.fromkeys(pending, error)
        failures: dict[int, Exception] = {}
        for number, scores in pending.items():
            try:
                read_together([scores], self._batches)
            except ServerError:
                raise
            except Exception as error:
                failures[number] = error
        return failures

    def _advanced(self, one: _ActiveRun, step: Callable[[], Question]) -> Iterator[tuple[int, Attribution | Exception]]:
        """Advance a run to its next question; if it ends instead, yield its outcome."""
        try:
            one.question = step()
            return
        except StopIteration as stop:
            estimate, game = stop.value
        except Exception as error:
            yield self._landed(one, error)
            return
        try:
            result = self._stages.finish(one.run, estimate, game)
        except Exception as error:
            yield self._landed(one, error)
            return
        yield self._landed(one, result)

    def _landed(self, one: _ActiveRun, outcome: Attribution | Exception) -> tuple[int, Attribution | Exception]:
        """End a run.

        Raises:
            ServerError: the run failed with it.
        """
        failed = outcome if isinstance(outcome, Exception) else None
        del self._active[one.number]
        self._ended += 1
        self._evaluations += one.run.tally.evaluations
        self._taken += one.taken
        self._stages.end(one.run, failed)
        if failed is not None and self._stops:
            self._more = False
            self._give_up([later for number, later in self._active.items() if number > one.number], None)
        self._report()
        if isinstance(failed, ServerError):  # no other run can go on, whatever is done with errors
            raise failed
        return one.number, outcome

    def _give_up(self, active: list[_ActiveRun], ended_by: BaseException | None) -> None:
        """End runs whose results are no longer needed, and wait for their threads."""
        interrupted = isinstance(ended_by, KeyboardInterrupt)
        why = ended_by if interrupted else GeneratorExit("attribute_many ended before this run did")
        for one in active:
            del self._active[one.number]
            self._evaluations += one.run.tally.evaluations
            if one.conversation is not None:
                one.conversation.close()
            self._stages.end(one.run, why)

    def _watch(self, event: ProgressEvent) -> None:
        self._stages.report(event)
        self._report()

    def _report(self) -> None:
        active = self._active.values()
        evaluations = self._evaluations + sum(one.run.tally.evaluations for one in active)
        share = sum((one.share(self._taken / max(1, self._ended)) for one in active), 0.0)
        self._stages.report(ProgressEvent("items", self._ended, self._total, evaluations, share=share))


def _call(function: Callable[..., Question], argument: object) -> Callable[[], Question]:
    return lambda: function(argument)

"""Concurrent runs of many prompts in other processes, by an executor."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, PluginError, shown
from apportion.protocols.executor import Executor
from apportion.protocols.progress import ProgressEvent, Report
from apportion.results.attribution import Attribution
from apportion.runs.concurrent import arguments_of, check_many, closed_at_exit, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["distributed"]


def distributed(
    executor: Executor,
    settings: Mapping[str, Any],
    prompts: object,
    shared: Mapping[str, Any],
    *,
    at_once: int,
    on_error: str,
    on_finish: Callable[[int, Attribution | Exception], None] | None,
    report: Report,
) -> Iterator[Attribution | Exception]:
    """Yield the results of many prompts, in order; all prompts are taken from the iterable before the first starts.

    Args:
        executor: attributes them.
        settings: arguments of ``Explainer``.
        prompts: prompts, or mappings of arguments.
        shared: arguments for all of them.
        at_once: the most runs that a worker has in progress.
        on_error: ``"raise"`` or ``"return"``.
        on_finish: called with the number and outcome of each run as it ends.
        report: receives progress events.

    Raises:
        InputError: an argument is invalid, or cannot be sent to another process.
    """
    if not isinstance(executor, Executor):
        raise InputError(f"executor={shown(executor)} is not an Executor, such as ap.RayExecutor(workers=2).")
    items = check_many(prompts, shared, at_once=at_once, on_error=on_error, on_finish=on_finish)
    calls = [dict(arguments_of(item, shared)) for item in items]
    outcomes = _outcomes(executor, _sendable(settings), calls, at_once, report)
    return closed_at_exit(in_order(outcomes, on_error == "raise", on_finish))


def _sendable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``Explainer`` for workers, which show no progress.

    Raises:
        InputError: the model is an object, which would have to be copied to each of them.
    """
    if not isinstance(settings["model"], str):
        kind = type(settings["model"]).__name__
        raise InputError(
            f"Workers open the model themselves, so it must be a name, a path or an address, and not {kind}. Save the "
            "model to a folder, and give that."
        )
    return {**settings, "progress": False}


def _outcomes(
    executor: Executor,
    settings: Mapping[str, Any],
    calls: Sequence[Mapping[str, Any]],
    at_once: int,
    report: Report,
) -> Generator[tuple[int, Attribution | Exception], None, None]:
    """Check and count what the executor yields."""
    ended: set[int] = set()
    evaluations = 0
    failure: BaseException | None = None
    report(ProgressEvent("items", 0, len(calls)))
    try:
        with closing(executor.outcomes(settings, calls, at_once=at_once)) as found:
            for number, outcome in found:
                if number in ended or not 0 <= number < len(calls):
                    raise PluginError(f"The executor {type(executor).__name__} returned the call {number} again.")
                if not isinstance(outcome, Attribution | Exception):
                    raise PluginError(f"The executor {type(executor).__name__} returned {shown(outcome)}.")
                ended.add(number)
                if isinstance(outcome, Attribution):
                    evaluations += outcome.provenance.evaluations
                report(ProgressEvent("items", len(ended), len(calls), evaluations))
                yield number, outcome
        if len(ended) < len(calls):
            missing = len(calls) - len(ended)
            raise PluginError(f"The executor {type(executor).__name__} left out {missing} of {len(calls)} calls.")
    except GeneratorExit:
        raise
    except BaseException as error:
        failure = error
        raise
    finally:
        report(ProgressEvent("close", len(ended), len(calls), evaluations, error=failure))

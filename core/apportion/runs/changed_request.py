"""Requests that are made from those of results: with a larger budget, or another target function of the same texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, counted, shown
from apportion.protocols.request import Request
from apportion.protocols.targets import Needs
from apportion.runs.resolver import limits
from apportion.runs.text_values import check_target

if TYPE_CHECKING:
    from apportion.runs.resolver import Resolver

__all__ = ["larger_request", "rescored_request"]


def larger_request(
    resolver: Resolver,
    request: Request,
    request_id: str,
    budget: int | None,
    until: float | None,
    max_std_error: float | None,
    spent: int,
) -> Request:
    """Return the request with a larger budget; ``"auto"`` chooses again, for what is left of the new budget.

    Args:
        resolver: resolves names.
        request: the request of the result.
        request_id: id of the new run.
        budget: the larger budget; ``None`` for the default of ``until``.
        until: the largest standard error allowed.
        max_std_error: alias of ``until``.
        spent: evaluations that the result took.

    Raises:
        InputError: neither limit is given, or the budget is not larger.
    """
    given = budget
    budget, until = limits(budget, until, max_std_error)
    if budget is None:
        raise InputError("Give budget= (total evaluations) or until= (the largest standard error allowed).")
    if given is None:
        budget = max(budget, 2 * spent)
    if budget <= spent:
        raise InputError(
            f"budget={budget} must be larger than the {counted(spent, 'evaluation')} that this result took."
        )
    method = "auto" if request.method_reason else request.method
    features = len(request.adapter.features)
    drilled = spent if request.method_reason and request.method_name == "hierarchical" else 0
    chosen = resolver.chosen(method, request.renderer, features, budget, request.given_options, drilled)
    if not request.method_reason:
        chosen["method_name"] = request.method_name
    elif chosen["method_name"] != request.method_name:
        chosen["method_notes"] = (*chosen["method_notes"], *_change(request, chosen["method_name"], drilled))
        if chosen["method_name"] != "shapley":  # exact values use every coalition again
            chosen["coalition_budget"] = max(1, (budget - spent) // request.renderer.draws)
    return replace(request, id=request_id, until=until, **chosen)


def rescored_request(
    resolver: Resolver,
    request: Request,
    request_id: str,
    target_fn: object,
    target_options: Mapping[str, Any] | None,
    target: object,
) -> Request:
    """Return a request whose texts get their values from another target function.

    Args:
        resolver: resolves names.
        request: the request of the result.
        request_id: id of the new run.
        target_fn: the other function.
        target_options: its options.
        target: another text to compare with; ``None`` for the same.

    Raises:
        InputError: the function reads no texts, or the target is not a text.
    """
    name, function, _ = resolver.functions(target_fn, target_options, None, None)
    if function.needs is not Needs.TEXT:
        raise InputError(f"The target function {name!r} reads no texts. Choose one that does, such as 'chrf'.")
    compared = request.target
    if target is not None:
        given = resolver.targets.checked("target", target)
        if not isinstance(given, str):
            raise InputError(f"The target must be a text, not {shown(target)}.")
        compared = resolver.targets.of_text(given, generated=False)
    check_target(function, compared)
    steps = request.step_scores if target is None else ()
    return replace(
        request,
        id=request_id,
        target=compared,
        target_fn_name=name,
        target_fn=function,
        step_scores=steps,
        target_options=dict(target_options or {}),
        given={**request.given, "target_fn": target_fn},
    )


def _change(request: Request, method: str, drilled: int) -> tuple[str, ...]:
    """A note on values of another kind than those of the result that was refined; nothing if the kind is the same."""
    if not drilled:
        return ()
    return (
        f"The result before had Owen values of groups, from {counted(drilled, 'evaluation')} of "
        f"{request.method_name!r}. The larger budget allows Shapley values of single features, which {method!r} "
        "computes: they answer another question, so the values may differ by more than their errors.",
    )

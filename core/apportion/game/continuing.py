"""Runs of methods that continue from an earlier result, within a budget that counts both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from apportion.errors import BudgetError, counted
from apportion.game.game import Game
from apportion.game.method_runner import run_method
from apportion.protocols.methods import Estimate

if TYPE_CHECKING:
    from apportion.protocols.request import Request

__all__ = ["continue_method"]


def continue_method(request: Request, past: Request, game: Game, spent: int) -> Estimate:
    """Run the method of a request that continues another one.

    Most methods repeat their queries with a larger budget, and add more. What others no longer need was paid for
    nevertheless, so they run with as many fewer coalitions. The queries of one attempt are refused before anything is
    scored, so that a further attempt costs nothing.

    Args:
        request: the request, with the larger budget.
        past: the request that it continues.
        game: a game that counts what the earlier run spent, if that is known.
        spent: evaluations of the earlier result.

    Raises:
        BudgetError: what is left is too small for the method.
    """
    same, draws, whole = request.method_name == past.method_name, request.renderer.draws, request.coalition_budget
    before, limit = game.evaluations, whole
    while True:
        game.excess = 0
        try:
            estimate = run_method(replace(request, coalition_budget=limit), game)
            break
        except BudgetError as error:
            smaller = None if limit is None else _smaller(limit, -(-game.excess // draws), past.coalition_budget)
            if smaller is not None and game.excess and smaller >= max(1, (whole or 0) - before):
                limit = smaller
            elif limit == whole or limit is None:
                raise
            else:
                raise BudgetError(
                    f"{error} (Of the budget of {counted(request.budget or 0, 'evaluation')}, {spent} are spent on the "
                    "result so far, and the method cannot use all of them again. Give a larger budget.)"
                ) from error
    if not same:
        return estimate
    if game.evaluations == spent:
        note = "the larger budget changed nothing: no evaluation was added"
    elif limit is not None and whole is not None and limit < whole:
        note = f"the budget includes {counted((whole - limit) * draws, 'earlier evaluation')} that no longer serve"
    else:
        return estimate
    return replace(estimate, notes=(*estimate.notes, note))


def _smaller(limit: int, excess: int, earlier: int | None) -> int:
    """The next budget to try; that of the earlier run, which would repeat its queries, is not skipped."""
    least = limit - max(1, excess)
    return earlier if earlier is not None and least < earlier < limit else least

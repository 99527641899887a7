"""Runs that end when they know enough: the same method with a growing budget, nothing scored twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from apportion.errors import BudgetError
from apportion.game.game import Game
from apportion.protocols.methods import Estimate

__all__ = ["run_until"]

Run = Callable[[int], Estimate]

LEAST = 32
"""Coalitions of the first step, where the budget has as many."""


def run_until(run: Run, game: Game, limit: int, until: float) -> Estimate:
    """Run a method with growing budgets until every standard error of the whole target is small enough.

    Samplers go on with the same draws when their budget grows, so that a step scores only what is new in it. A
    method that draws anew ends when the game's own budget does; its last estimate counts.

    Args:
        run: the method, given a budget of coalitions.
        game: what it asks; counts the evaluations.
        limit: the largest budget.
        until: the standard error that is small enough.

    Raises:
        BudgetError: the largest budget is too small for the method.
    """
    estimate: Estimate | None = None
    budget = min(limit, max(LEAST, 4 * game.n_features))
    while True:
        try:
            estimate = run(budget)
        except BudgetError:
            if estimate is not None:
                return _told(estimate, game, until)
            if budget == limit:
                raise
            budget = min(limit, 2 * budget)
            continue
        if estimate.std_error is None and budget < limit:
            budget = limit  # nothing to wait for: what it would have done without `until`
            continue
        worst = _largest_error(estimate)
        if worst <= until or budget == limit:
            return _told(estimate, game, until)
        budget = min(limit, _next(budget, worst, until))


def _largest_error(estimate: Estimate) -> float:
    """Of the whole target; infinite where it is not known yet."""
    if estimate.std_error is None:
        return 0.0
    return float(estimate.std_error[:, 0].nan_to_num(math.inf).max())


def _next(budget: int, worst: float, until: float) -> int:
    """What the errors' fall with the root of the budget suggests, in even steps that are neither tiny nor rash."""
    wanted = budget * (worst / until) ** 2
    return 2 * math.ceil(min(max(wanted, 1.1 * budget), 1.5 * budget) / 2)


def _told(estimate: Estimate, game: Game, until: float) -> Estimate:
    if estimate.std_error is None:
        return replace(estimate, notes=(*estimate.notes, "until changed nothing: these values have no sampling error"))
    worst = _largest_error(estimate)
    if worst <= until:
        note = f"ended after {game.evaluations} evaluations: every standard error is at most {until:g}"
    else:
        known = f"the largest standard error is {worst:.3g}" if math.isfinite(worst) else "no standard error is known"
        note = f"the budget ended before every standard error was at most {until:g}: {known}"
    return replace(estimate, notes=(*estimate.notes, note))

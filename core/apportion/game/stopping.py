"""Runs that stop at a given standard error: the method is run with increasing budgets, and nothing is scored twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from apportion.errors import BudgetError, counted
from apportion.game.game import Game
from apportion.protocols.methods import Estimate

__all__ = ["run_until"]

Run = Callable[[int], Estimate]

LEAST = 32
"""Number of coalitions in the first step, or the whole budget if that is smaller."""


def run_until(run: Run, game: Game, limit: int, until: float) -> Estimate:
    """Run a method with increasing budgets until every standard error of the whole target is small enough.

    With a larger budget, samplers repeat their draws and add more, so that a step scores only new coalitions. A method
    that draws different coalitions each time stops when the game's own budget is spent; its last estimate is returned.

    Args:
        run: runs the method with a budget of coalitions.
        game: the game that it queries, which counts the evaluations.
        limit: the largest budget.
        until: the largest standard error allowed.

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
            budget = limit  # there are no errors to reduce, so run as without `until`
            continue
        worst = _largest_error(estimate)
        if worst <= until or budget == limit:
            return _told(estimate, game, until)
        budget = min(limit, _next(budget, worst, until))


def _largest_error(estimate: Estimate) -> float:
    """Largest standard error of the whole target; infinite if one is still unknown."""
    if estimate.std_error is None:
        return 0.0
    return float(estimate.std_error[:, 0].nan_to_num(math.inf).max())


def _next(budget: int, worst: float, until: float) -> int:
    """Next budget: even, 1.1 to 1.5 times the last, and enough for ``until`` if errors shrink with its square root."""
    wanted = budget * min(worst / until, 2.0) ** 2  # a power of more might not fit a float
    return 2 * math.ceil(min(max(wanted, 1.1 * budget), 1.5 * budget) / 2)


def _told(estimate: Estimate, game: Game, until: float) -> Estimate:
    if estimate.std_error is None:
        return estimate
    worst = _largest_error(estimate)
    if worst <= until:
        note = f"stopped after {counted(game.evaluations, 'evaluation')}: every standard error is at most {until:g}"
    else:
        known = f"the largest standard error is {worst:.3g}" if math.isfinite(worst) else "not all of them are known"
        note = f"the budget was spent before every standard error was at most {until:g}: {known}"
    return replace(estimate, notes=(*estimate.notes, note))

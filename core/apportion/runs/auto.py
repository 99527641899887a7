"""The rule behind ``method="auto"``; ``benchmarks/results/estimators.md`` has the measurements that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from apportion.errors import BudgetError, counted

__all__ = ["DEFAULT_BUDGET", "UNTIL_BUDGET", "Choice", "choose_method"]

DEFAULT_BUDGET = 1024
"""Default budget of ``method="auto"`` in evaluations: enough for exact values of 10 features."""

UNTIL_BUDGET = 4096
"""Default budget of a run with ``until``, in evaluations."""

FEW = 20
"""Number of features below which 2F + 2 coalitions are enough for ``gp_shap``; beyond, it takes 3F."""

MOST_IN_PROCESS = 500
"""Maximum number of features for ``gp_shap``, whose own time grows with their cube; ``kernel_shap`` takes 4F."""

MOST_COALITIONS = 8192
"""Maximum number of coalitions for ``gp_shap``, whose memory grows with their square: 20,000 take 5 GiB."""

VERY_LONG = 1000
"""Number of features above which groups have four parts instead of two; nested pairs would take too many steps."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice of ``method="auto"``, and the reason for it.

    Attributes:
        method: name of the method.
        budget: maximum number of evaluations, the user's or the default.
        reason: the reason, which follows the method's name in results.
        options: options of the method that belong to the choice.
        notes: sentences for the result, if the values are not Shapley values.
    """

    method: str
    budget: int
    reason: str
    options: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def choose_method(n_features: int, budget: int | None, draws: int = 1, drilled: int = 0) -> Choice:
    """Choose a method for ``method="auto"``; it never takes more evaluations than the budget.

    Exact Shapley values if their 2^F coalitions fit the budget. Otherwise, the sampled ones with the least error:
    ``gp_shap`` from 3F coalitions (2F + 2 below 20 features), or ``kernel_shap`` from 4F if there are more than 500
    features, and for more than 8,192 coalitions. Otherwise, Owen values of nested groups, found by drilling down, and a
    note that says so: with so few coalitions, even their distance to the Shapley values of single features is smaller
    than the error of the samplers.

    Args:
        n_features: F.
        budget: maximum number of distinct evaluations; ``None`` for the default.
        draws: evaluations per coalition, one for each combination of alternative baselines.
        drilled: evaluations of the budget that are spent on drilling down already. They serve it again, and exact
            values too, but not sampled ones.

    Raises:
        BudgetError: the budget is too small for any of them; the message names the least that would do.
    """
    limit = DEFAULT_BUDGET if budget is None else budget
    coalitions, left = limit // draws, (limit - drilled) // draws
    each = f" of {draws} evaluations each" if draws > 1 else ""
    allowed = f"{'the default budget' if budget is None else 'the budget'} of {counted(limit, 'evaluation')}"
    exact, sampled = _least_exact(n_features), _least_sampled(n_features)
    if exact is not None and exact <= coalitions:
        return Choice("shapley", limit, f"all 2^{n_features} = {exact} coalitions{each} fit {allowed}")
    too_many = f"2^{n_features} coalitions{each} do not fit {allowed}"
    if sampled <= left <= MOST_COALITIONS and n_features <= MOST_IN_PROCESS:
        return Choice("gp_shap", limit, f"{too_many}; of the sampled Shapley values, these have the least error")
    if left >= sampled:
        many = "evaluations" if n_features <= MOST_IN_PROCESS else "features"
        reason = f"{too_many}; with so many {many}, Shapley values are sampled by regression"
        return Choice("kernel_shap", limit, reason)
    if coalitions >= _least_drilled(n_features):
        spent = f", of which drilling down took {drilled}" if drilled else ""
        note = (
            "These are Owen values, not Shapley values: neighbouring features, such as the words of a sentence, first "
            "join as a group, and then divide what the group is worth. Sampled Shapley values of all "
            f"{n_features} features take budget={sampled * draws + drilled} or more."
        )
        options = {"scores": "owen", "branching": _branching(n_features)}
        return Choice("hierarchical", limit, f"{too_many}{spent}, nor do sampled values", options, (note,))
    raise _too_small(n_features, draws, allowed)


def _too_small(n_features: int, draws: int, allowed: str) -> BudgetError:
    """The error that names the least budget that would do."""
    exact, sampled, drilled = _least_exact(n_features), _least_sampled(n_features), _least_drilled(n_features)
    least = min(sampled, drilled, exact or drilled)
    each = f" ({least} coalitions of {draws} evaluations each)" if draws > 1 else ""
    shapley = min(sampled, exact or sampled)
    more = f" ({shapley * draws} or more for Shapley values)" if shapley > least else ""
    return BudgetError(
        f"method='auto' takes at least {least * draws} evaluations for {counted(n_features, 'feature')}{each}; "
        f"{allowed} is too small. Give budget={least * draws} or more{more}."
    )


def _branching(n_features: int) -> int:
    """Parts per group when drilling down; with more, the first steps would take most of a small budget."""
    return 2 if n_features <= VERY_LONG else 4


def _least_drilled(n_features: int) -> int:
    """Coalitions of the first step of drilling down."""
    found: int = 2 ** _branching(n_features)
    return found


def _least_exact(n_features: int) -> int | None:
    """Coalitions for exact values; ``None`` for a number that no budget allows."""
    return 2**n_features if n_features < 63 else None


def _least_sampled(n_features: int) -> int:
    """Coalitions from which sampled Shapley values have standard errors, and a smaller error than drilling down."""
    if n_features < FEW:
        return 2 * n_features + 2
    return (3 if n_features <= MOST_IN_PROCESS else 4) * n_features

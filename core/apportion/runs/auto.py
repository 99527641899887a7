"""The rule behind ``method="auto"``; ``benchmarks/results/estimators.md`` has the measurements that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from apportion.errors import BudgetError

__all__ = ["DEFAULT_BUDGET", "UNTIL_BUDGET", "Choice", "choose_method"]

DEFAULT_BUDGET = 1024
"""Default budget of ``method="auto"`` in evaluations: enough for exact values of 10 features."""

UNTIL_BUDGET = 4096
"""Default budget of a run with ``until``, in evaluations."""

MOST_IN_PROCESS = 500
"""Maximum number of features for ``gp_shap``, whose own time grows with their cube: some seconds at 500."""

PER_FEATURE = 4
"""Coalitions per feature from which ``kernel_shap`` has a smaller error than drilling down."""

BRANCHING = 4
"""Parts per group when drilling down; with more, the first steps would take most of a small budget."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice of ``method="auto"``, and the reason for it.

    Attributes:
        method: name of the method.
        budget: maximum number of evaluations, the user's or the default.
        reason: the reason, which follows the method's name in results.
        options: options of the method that belong to the choice.
        note: sentences for the result if the values are not Shapley values; else empty.
    """

    method: str
    budget: int
    reason: str
    options: Mapping[str, object] = field(default_factory=dict)
    note: str = ""


def choose_method(n_features: int, budget: int | None, draws: int = 1) -> Choice:
    """Choose a method for ``method="auto"``; it never takes more evaluations than the budget.

    Exact Shapley values if their 2^F coalitions fit the budget. Otherwise, the sampled ones with the least error:
    ``gp_shap`` from 2F + 2 coalitions, or ``kernel_shap`` from 4F if there are more than 500 features. Otherwise,
    Owen values of nested groups, found by drilling down, and a note that says so.

    Args:
        n_features: F.
        budget: maximum number of distinct evaluations; ``None`` for the default.
        draws: evaluations per coalition, one for each combination of alternative baselines.

    Raises:
        BudgetError: the budget is too small for any of them; the message names the least that would do.
    """
    limit = DEFAULT_BUDGET if budget is None else budget
    coalitions = limit // draws
    each = f" of {draws} evaluations each" if draws > 1 else ""
    allowed = f"{'the budget' if budget is not None else 'the default budget'} of {limit} evaluations"
    exact, sampled, drilled = _least_exact(n_features), _least_sampled(n_features), 2**BRANCHING
    if exact is not None and exact <= coalitions:
        return Choice("shapley", limit, f"all 2^{n_features} = {exact} coalitions{each} fit {allowed}")
    least = min(sampled, drilled) if exact is None else min(exact, sampled, drilled)
    if coalitions < least:
        raise BudgetError(
            f"method='auto' takes at least {least} coalitions{each} for {n_features} features, and {allowed} allows "
            f"{coalitions}. Give budget={least * draws} or more, or use fewer features (a coarser `by`, groups, `keep`)."
        )
    too_many = f"2^{n_features} coalitions{each} do not fit {allowed}"
    if coalitions >= sampled:
        method = "gp_shap" if n_features <= MOST_IN_PROCESS else "kernel_shap"
        return Choice(method, limit, f"{too_many}; of the sampled Shapley values, these have the least error")
    return Choice(
        "hierarchical",
        limit,
        f"{too_many}, nor do sampled Shapley values, which take {sampled}; Owen values of nested groups do",
        {"scores": "owen", "branching": BRANCHING},
        "These are Owen values, not Shapley values: neighbouring features, such as the words of a sentence, first join "
        f"as a group, and then divide what the group is worth. Sampled Shapley values of all {n_features} features take "
        f"budget={sampled * draws} or more.",
    )


def _least_exact(n_features: int) -> int | None:
    """Coalitions for exact values; ``None`` for a number that no budget allows."""
    return 2**n_features if n_features < 63 else None


def _least_sampled(n_features: int) -> int:
    """Coalitions for sampled Shapley values with standard errors and a small enough error."""
    return 2 * n_features + 2 if n_features <= MOST_IN_PROCESS else PER_FEATURE * n_features

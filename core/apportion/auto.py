"""What ``method="auto"`` means."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_BUDGET", "Choice", "choose_method"]

DEFAULT_BUDGET = 1024
"""Evaluations that ``method="auto"`` may spend when no budget is given: an exact table of 10 features."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``method="auto"`` chose, and why."""

    method: str
    budget: int
    reason: str


def choose_method(n_features: int, budget: int | None) -> Choice:
    """The rule behind ``method="auto"``.

    Exact Shapley values while their 2^F coalitions fit the budget; otherwise permutation sampling if the
    budget holds the two antithetic pairs that a standard error needs (4F − 2 coalitions); otherwise
    leave-one-out.
    A budget too small even for that is refused by the method itself.
    """
    limit = DEFAULT_BUDGET if budget is None else budget
    allowed = f"the budget of {limit}" if budget is not None else f"the default budget of {limit}"
    if n_features < 63 and 2**n_features <= limit:
        reason = f"all 2^{n_features} = {2**n_features} coalitions fit {allowed} evaluations"
        return Choice("shapley", limit, reason)
    exact = f"2^{n_features} coalitions do not fit {allowed} evaluations"
    if 4 * n_features - 2 <= limit:
        return Choice("permutation", limit, f"{exact}; random permutations do")
    reason = f"{exact}, nor do two pairs of permutations ({4 * n_features - 2})"
    return Choice("ablation", max(limit, n_features + 1) if budget is None else limit, reason)

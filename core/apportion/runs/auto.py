"""What ``method="auto"`` means."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_BUDGET", "Choice", "choose_method"]

DEFAULT_BUDGET = 1024
"""Evaluations that ``method="auto"`` may spend when no budget is given: an exact table of 10 features."""

UNTIL_BUDGET = 4096
"""Evaluations that a run with ``until`` may spend when no budget is given."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``method="auto"`` chose, and why."""

    method: str
    budget: int
    reason: str


def choose_method(n_features: int, budget: int | None, draws: int = 1) -> Choice:
    """The rule behind ``method="auto"``.

    Exact Shapley values while their 2^F coalitions fit the budget; otherwise a regression on pairs of coalitions
    if the budget holds the F pairs, besides the empty and the full coalition, from which it has standard errors;
    otherwise leave-one-out. A budget too small even for that is refused by the method itself.

    Args:
        n_features: F.
        budget: the most distinct evaluations; ``None`` for the default.
        draws: evaluations that a coalition takes, one for each combination of alternative baselines.
    """
    limit = DEFAULT_BUDGET if budget is None else budget
    each = f" of {draws} evaluations each" if draws > 1 else ""
    allowed = f"{'the budget' if budget is not None else 'the default budget'} of {limit} evaluations"
    if n_features < 63 and 2**n_features * draws <= limit:
        reason = f"all 2^{n_features} = {2**n_features} coalitions{each} fit {allowed}"
        return Choice("shapley", limit, reason)
    exact = f"2^{n_features} coalitions{each} do not fit {allowed}"
    pairs = 2 * n_features + 2
    if pairs * draws <= limit:
        return Choice("kernel_shap", limit, f"{exact}; a regression on pairs of coalitions does")
    least = (n_features + 1) * draws
    reason = f"{exact}, nor does a regression with standard errors ({pairs} coalitions)"
    return Choice("ablation", max(limit, least) if budget is None else limit, reason)

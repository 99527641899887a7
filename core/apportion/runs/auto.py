"""The rule behind ``method="auto"``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_BUDGET", "Choice", "choose_method"]

DEFAULT_BUDGET = 1024
"""Default budget of ``method="auto"`` in evaluations: enough for exact values of 10 features."""

UNTIL_BUDGET = 4096
"""Default budget of a run with ``until``, in evaluations."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice of ``method="auto"``, and the reason for it."""

    method: str
    budget: int
    reason: str


def choose_method(n_features: int, budget: int | None, draws: int = 1) -> Choice:
    """Choose a method for ``method="auto"``.

    Exact Shapley values if their 2^F coalitions fit the budget. Otherwise, a regression on pairs of coalitions if the
    budget allows F pairs plus the empty and the full coalition, which it needs for standard errors. Otherwise,
    leave-one-out. If the budget is too small even for that, the method itself rejects it.

    Args:
        n_features: F.
        budget: maximum number of distinct evaluations; ``None`` for the default.
        draws: evaluations per coalition, one for each combination of alternative baselines.
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

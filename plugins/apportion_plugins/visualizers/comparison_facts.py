"""The agreement of results that are compared, as texts shared by the views."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.ranking import TOP
from apportion_plugins.visualizers.numbers import DECIMALS, Numbers, half_widths

__all__ = ["agreements", "value_cells"]


def value_cells(result: Attribution) -> list[str]:
    """Values, with the half-widths of their intervals if they are estimates."""
    values, half = np.asarray(result.values), half_widths(result)
    numbers = Numbers(values, decimals=DECIMALS)
    if half is None:
        return [numbers.signed(value) for value in values]
    return [f"{numbers.signed(value)} ± {numbers.plain(error)}" for value, error in zip(values, half, strict=True)]


def agreements(comparison: ResultComparison) -> tuple[list[str], list[tuple[int, int, list[str]]]]:
    """Heads of the columns, and for each pair of results its rank correlation and the top features in common."""
    correlation, common = comparison.rank_correlation, comparison.top_overlap()
    top = min(TOP, len(comparison.results[0].features))
    rows = [
        (i, j, [f"{correlation[i, j]:.2f}".replace("-", "−"), f"{round(float(common[i, j]) * top)} of {top}"])
        for i, j in combinations(range(len(comparison.results)), 2)
    ]
    return ["rank correlation", f"top {top} in common"], rows

"""Results that are compared, as texts shared by the views: what each is, its values, and their agreement."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from apportion.errors import counted, listing
from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.ranking import TOP
from apportion_plugins.visualizers.facts import quantity_of
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.numbers import DECIMALS, INTERVAL, Numbers

__all__ = [
    "FEW",
    "about",
    "comparison_notes",
    "comparison_title",
    "correlation_text",
    "numbered",
    "overlap_text",
    "pair_rows",
    "top_count",
    "two_decimals",
    "value_cells",
]

FEW = 3
"""Maximum number of results whose pairs are listed; the agreement of more is shown as matrices."""


def numbered(comparison: ResultComparison) -> list[str]:
    """Names on one line; with their number where matrices refer to it."""
    names = [one_line(name) for name in comparison.names]
    return names if len(names) <= FEW else [f"{i + 1} {name}" for i, name in enumerate(names)]


def about(result: Attribution) -> str:
    """The estimand of a result, its unit, and what it cost."""
    made = result.provenance
    cost = counted(made.evaluations + made.cached, "evaluation")
    return f"{quantity_of(result, magnitudes=True)}, {cost}"


def comparison_title(comparison: ResultComparison) -> str:
    """Number of results that are compared."""
    return counted(len(comparison.results), "attribution") + " compared"


def value_cells(comparison: ResultComparison, i: int) -> list[str]:
    """Values of a result, with the half-widths of their intervals if they are estimates."""
    values, errors = comparison.values[i], comparison.std_errors[i]
    numbers = Numbers(values, decimals=DECIMALS, signed=comparison.results[i].signed)
    if errors is None:
        return [numbers.signed(value) for value in values]
    half = INTERVAL * np.asarray(errors)
    return [f"{numbers.signed(value)} ± {numbers.plain(error)}" for value, error in zip(values, half, strict=True)]


def pair_rows(comparison: ResultComparison) -> tuple[list[str], list[tuple[int, int, list[str]]]]:
    """Heads of the columns, and for each pair of results its rank correlation and the top features in common."""
    correlation, common = comparison.rank_correlation, comparison.top_overlap()
    top = top_count(comparison)
    rows = [
        (i, j, [two_decimals(correlation[i, j]), f"{overlap_text(common[i, j], top)} of {top}"])
        for i, j in combinations(range(len(comparison.results)), 2)
    ]
    return ["rank correlation", f"top {top} in common"], rows


def two_decimals(value: float) -> str:
    """A correlation with two decimals and a proper minus sign."""
    return f"{value:.2f}".replace("-", "−")


def top_count(comparison: ResultComparison, k: int = TOP) -> int:
    """Number of top features that are compared: ``k``, or all if there are fewer."""
    return min(k, len(comparison.results[0].features))


def correlation_text(value: float) -> str:
    """A rank correlation in few characters: ``.87``, ``−.40``, ``1``."""
    text = f"{value:.2f}"
    if text in ("1.00", "-1.00", "0.00", "-0.00"):
        return {"1": "1", "-1": "−1"}.get(text[:-3], "0")
    return text.replace("0.", ".", 1).replace("-", "−")


def overlap_text(share: float, top: int) -> str:
    """Number of top features in common."""
    return str(round(float(share) * top))


def comparison_notes(comparison: ResultComparison) -> list[str]:
    """Warnings about quantities that stand side by side."""
    results, names = comparison.results, comparison.names
    notes = []
    units = list(dict.fromkeys(one_line(one.unit) for one in results))
    kinds = list(dict.fromkeys(one.estimand for one in results))
    if len(units) > 1:
        notes.append(f"Units differ ({listing(units)}): compare the rankings of two columns, not the sizes of values.")
    elif len(kinds) > 1:
        notes.append("The results estimate different quantities, so their values need not agree.")
    unsigned = [one_line(name) for name, one in zip(names, results, strict=True) if not one.signed]
    if len(unsigned) == len(results) > 1:
        notes.append("All values are magnitudes, without signs.")
    elif unsigned:
        notes.append(f"Rank correlations with magnitudes ({listing(unsigned)}) compare the magnitudes of both results.")
    return notes

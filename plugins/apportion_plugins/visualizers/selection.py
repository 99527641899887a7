"""Which features are shown when there are too many, and how a view says so."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from apportion.errors import InputError

__all__ = ["check_limit", "largest", "left_out", "ranked", "table_rows"]


def check_limit(option: str, limit: object, most: int | None = None) -> None:
    """Refuse a limit that is no count.

    Raises:
        InputError: not ``None`` and not a whole number of at least 1 (and at most ``most``).
    """
    if limit is None:
        return
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1 or (most is not None and limit > most):
        top = "" if most is None else f" and at most {most}"
        raise InputError(f"{option}={limit!r} must be a whole number of at least 1{top}, or None to show all.")


def largest(values: Float64[np.ndarray, " N"], limit: int | None) -> list[int]:
    """The positions of the ``limit`` largest magnitudes, in their own order; all if ``None``."""
    if limit is None or len(values) <= limit:
        return list(range(len(values)))
    return sorted(ranked(values)[:limit])


def ranked(values: Float64[np.ndarray, " N"]) -> list[int]:
    """Positions from the largest magnitude to the smallest; NaN last, ties in order."""
    return [int(i) for i in np.argsort(-np.nan_to_num(np.abs(values), nan=-1.0), kind="stable")]


def left_out(
    values: Float64[np.ndarray, " N"], shown: list[int], what: str, option: str, measure: str = "|attribution|"
) -> list[str]:
    """The note on what is not shown: how much, how large at most, and how to see it. Empty if all is shown."""
    missing = np.setdiff1d(np.arange(len(values)), shown)
    if not len(missing):
        return []
    top = np.nan_to_num(np.abs(values[missing])).max()
    return [
        f"Shown: the {len(shown)} {what} with the largest {measure} of {len(values)}; "
        f"the {len(missing)} left out have at most {top:.3g} each ({option}=None shows all)."
    ]


def table_rows(
    values: Float64[np.ndarray, " N"], max_features: int | None, *, sort: bool, most: int | None = None
) -> tuple[list[int], list[str]]:
    """The features in a table or chart, in its order, and the notes on what it leaves out.

    Raises:
        InputError: ``max_features`` is no count, or more than ``most`` would be shown.
    """
    check_limit("max_features", len(values) if most is not None and max_features is None else max_features, most)
    rows = largest(values, max_features)
    notes = left_out(values, rows, "features", "max_features")
    shown = set(rows)
    return ([i for i in ranked(values) if i in shown] if sort else rows), notes

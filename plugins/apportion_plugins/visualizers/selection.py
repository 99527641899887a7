"""Selection of features and target tokens to show, and notes on what is omitted."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from apportion.errors import InputError, listing, shown
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.labels import quotable, token_labels
from apportion_plugins.visualizers.palette import colour_limit

__all__ = [
    "check_limit",
    "checked_token",
    "largest",
    "left_out",
    "part_of_target",
    "ranked",
    "repeats_the_whole",
    "table_rows",
]


def check_limit(option: str, limit: object, most: int | None = None) -> None:
    """Refuse a limit that is not a positive whole number.

    Raises:
        InputError: the limit is neither ``None`` nor a whole number from 1 to ``most``.
    """
    if limit is None:
        return
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1 or (most is not None and limit > most):
        top = "" if most is None else f" and at most {most}"
        raise InputError(f"{option}={shown(limit)} must be a whole number of at least 1{top}, or None to show all.")


def checked_token(attribution: Attribution, token: object) -> int | None:
    """Check the position of a target token; ``None`` for the whole target.

    Raises:
        InputError: there is no such token, or tokens have no values of their own.
    """
    if token is None:
        return None
    if not attribution.has_token_values:
        raise InputError(
            f"token={token!r}: this result has no values of target tokens; only the whole target was scored. Leave out "
            "token=."
        )
    tokens = attribution.target_tokens
    if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < len(tokens):
        there = listing(f"{i} {text!r}" for i, text in enumerate(tokens))
        raise InputError(f"token={token!r} must be the position of a target token, or None for all: {there}.")
    return token


def part_of_target(attribution: Attribution, token: int | None) -> str:
    """Label of the part of the target that is shown: ``Target``, or a token."""
    if token is None:
        return "Target"
    name = quotable(token_labels(attribution.target_tokens)[token])
    return f"Token {token}, “{name}”, of the target"


def repeats_the_whole(attribution: Attribution) -> bool:
    """True if the values of the target tokens say no more than those of the whole target: there are none, or one."""
    if not attribution.has_token_values:
        return True
    tokens, values = np.asarray(attribution.token_values), np.asarray(attribution.values)
    return len(tokens) == 1 and np.allclose(tokens[0], values, atol=1e-6 * colour_limit(values), equal_nan=True)


def largest(values: Float64[np.ndarray, " N"], limit: int | None) -> list[int]:
    """Indices of the ``limit`` largest magnitudes, in ascending order; all if ``None``."""
    if limit is None or len(values) <= limit:
        return list(range(len(values)))
    return sorted(ranked(values)[:limit])


def ranked(values: Float64[np.ndarray, " N"]) -> list[int]:
    """Indices from the largest magnitude to the smallest; NaN last, ties in order."""
    return [int(i) for i in np.argsort(-np.nan_to_num(np.abs(values), nan=-1.0), kind="stable")]


def left_out(
    values: Float64[np.ndarray, " N"], shown: list[int], what: str, option: str, measure: str = "|attribution|"
) -> list[str]:
    """Note on what is omitted: how many, how large, and the option that shows them, if any. Empty if nothing is."""
    missing = np.setdiff1d(np.arange(len(values)), shown)
    if not len(missing):
        return []
    top = np.nan_to_num(np.abs(values[missing])).max()
    how = f" ({option}=None shows all)" if option else ""
    return [
        f"Showing the {len(shown)} of {len(values)} {what} with the largest {measure}; "
        f"the {len(missing)} omitted have at most {top:.3g} each{how}."
    ]


def table_rows(
    values: Float64[np.ndarray, " N"], max_features: int | None, *, sort: bool, most: int | None = None
) -> tuple[list[int], list[str]]:
    """Features in a table or chart, in display order, and notes on what is omitted.

    Raises:
        InputError: ``max_features`` is not a positive whole number, or more than ``most`` would be shown.
    """
    check_limit("max_features", len(values) if most is not None and max_features is None else max_features, most)
    rows = largest(values, max_features)
    notes = left_out(values, rows, "features", "max_features")
    shown = set(rows)
    return ([i for i in ranked(values) if i in shown] if sort else rows), notes

"""The interactions in a result, as shown by views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from apportion.errors import ResultError
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.numbers import INTERVAL, Numbers
from apportion_plugins.visualizers.selection import checked_token, part_of_target

__all__ = ["Pairs", "has_pairs", "interval_notes", "pairs_of", "reading"]

ADVICE = 'Run attribute again with method="interactions".'


@dataclass(frozen=True)
class Pairs:
    """Values and interactions of the whole target, or of one of its tokens.

    Attributes:
        index: estimand of the interactions.
        part: label of the part of the target: ``"Target"``, or a token.
        values: first-order values.
        half_widths: half-widths of their 95 % intervals, NaN where unknown; ``None`` for exact values.
        matrix: symmetric matrix of interactions.
        matrix_half_widths: half-widths for the interactions.
    """

    index: str
    part: str
    values: Float64[np.ndarray, " F"]
    half_widths: Float64[np.ndarray, " F"] | None
    matrix: Float64[np.ndarray, "F F"]
    matrix_half_widths: Float64[np.ndarray, "F F"] | None


def has_pairs(attribution: Attribution) -> bool:
    """True if the result has interactions."""
    return "interactions" in attribution.extras


def pairs_of(attribution: Attribution, token: int | None) -> Pairs:
    """The interactions of the whole target, or of the target token at a position.

    Raises:
        ResultError: the result has no interactions.
        InputError: there is no such token.
    """
    extras = attribution.extras
    if not has_pairs(attribution):
        raise ResultError(f"This result of method {attribution.provenance.method!r} has no interactions. {ADVICE}")
    index = str(extras.get("interaction_index", "interactions"))
    position, part = checked_token(attribution, token), part_of_target(attribution, token)
    if position is None:
        return Pairs(
            index,
            part,
            np.asarray(attribution.values),
            _half(attribution.std_error),
            _matrix(attribution, extras["interactions"]),
            _half_matrix(attribution, extras.get("interactions_std_error")),
        )
    errors, spread = attribution.token_std_error, extras.get("token_interactions_std_error")
    return Pairs(
        index,
        part,
        np.asarray(attribution.token_values[position]),
        _half(None if errors is None else errors[position]),
        _matrix(attribution, extras["token_interactions"][position]),
        _half_matrix(attribution, None if spread is None else spread[position]),
    )


def reading(attribution: Attribution) -> str:
    """Reading aid for interactions."""
    return f"Above 0: two features together add more than the sum of each alone ({attribution.unit}); below 0: less."


def interval_notes(pairs: Pairs) -> list[str]:
    """Notes on the uncertainty of the interactions."""
    half = pairs.matrix_half_widths
    if half is None:
        return []
    upper = np.triu_indices(len(half), 1)
    half, values = half[upper], pairs.matrix[upper]
    if np.isnan(half).any() or not len(half):
        return ["The standard errors of the interactions are unknown."] if len(half) else []
    numbers = Numbers(half)
    sure = int((np.abs(values) > half).sum())
    return [
        f"95 % intervals of the interactions: ±{numbers.plain(float(np.median(half)))} at the median, "
        f"±{numbers.plain(float(half.max()))} at most; those of {sure} of {len(half)} pairs exclude 0."
    ]


def _matrix(attribution: Attribution, found: object) -> Float64[np.ndarray, "F F"]:
    """Matrix from an array, or from the lists of a file, where NaN is ``None``."""
    matrix, n = np.array(found, dtype=np.float64), len(attribution.features)
    if matrix.shape != (n, n):
        raise ResultError(f"The interactions of {n} features have the shape {matrix.shape}. {ADVICE}")
    return matrix


def _half(errors: Float64[np.ndarray, " F"] | None) -> Float64[np.ndarray, " F"] | None:
    return None if errors is None else INTERVAL * np.asarray(errors)


def _half_matrix(attribution: Attribution, errors: object) -> Float64[np.ndarray, "F F"] | None:
    return None if errors is None else INTERVAL * _matrix(attribution, errors)

"""The finding of a context reliance in one sentence, which its views, its text and its notes share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from apportion.errors import counted
from apportion.results.outliers import outlier_threshold

__all__ = ["finding"]


def finding(
    scores: Float64[np.ndarray, " T"], sensitive: Bool[np.ndarray, " T"], deviations: float | None, name: str, unit: str
) -> str:
    """The number of tokens that depend on the context; if none stands out, the largest score and the threshold.

    Args:
        scores: value of the metric at each output token.
        sensitive: the tokens that were chosen.
        deviations: standard deviations above the mean from which tokens are chosen; ``None`` for no threshold.
        name: name of the metric.
        unit: its unit.
    """
    found, tokens = int(sensitive.sum()), counted(len(scores), "output token")
    if found:
        return f"{found} of {tokens} {'depends' if found == 1 else 'depend'} on the context"
    known = np.nan_to_num(scores)
    largest = float(known[np.abs(known).argmax()])
    if not largest:
        return f"None of {tokens} depends on the context: the {name} is 0 {unit} throughout"
    threshold = outlier_threshold(known, deviations)
    return (
        f"None of {tokens} stands out by the threshold: the largest {name} is {largest:.3g} {unit}, and the threshold "
        f"{threshold:.3g}"
    )

"""Results in a few lines, for ``print`` and for the prompt of an interpreter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from apportion.results.ranking import TOP

if TYPE_CHECKING:
    from apportion.results.attribution import Attribution
    from apportion.results.evaluation import Evaluation

__all__ = ["brief_attribution", "brief_comparison", "brief_evaluation"]

LONGEST = 48
"""Longest quotation, in characters."""
MOST_METRICS = 6


def brief_attribution(result: Attribution) -> str:
    """Three lines: estimand and target, top features, method and cost."""
    values, provenance = np.asarray(result.values), result.provenance
    order = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:TOP]
    top = ", ".join(f"{quoted(result.features[i].name)} {values[i]:+.3g}" for i in order)
    target = quoted(result.target_text or "".join(result.target_tokens))
    against = "" if provenance.contrast is None else f" against {quoted(provenance.contrast)}"
    model = f" on {quoted(provenance.model)}" if provenance.model else ""
    return (
        f"Attribution: {result.estimand} of {_count(len(values), 'feature')}, target {target}{against}\n"
        f"  top: {top} ({result.unit})\n"
        f"  {provenance.method}{model}: {_count(provenance.evaluations, 'evaluation')}, {provenance.seconds:.3g} s"
    )


def brief_evaluation(found: Evaluation) -> str:
    """Three lines: what was judged, measurements, cost."""
    shown = [
        f"{name} {one.value:.3g}" + ("" if one.std_error is None else f" (standard error {one.std_error:.2g})")
        for name, one in found.measurements.items()
    ]
    return (
        f"Evaluation: {found.method} ({found.estimand}) of {_count(found.n_features, 'feature')}, "
        f"target {quoted(found.target)}\n"
        f"  {_listed(shown)}\n"
        f"  {_count(found.evaluations, 'evaluation')} in addition to those of the run"
    )


def brief_comparison(evaluations: Sequence[Evaluation], metrics: Iterable[str]) -> str:
    """Two lines: what is compared, and by which metrics."""
    methods = _listed([one.method for one in evaluations])
    target = quoted(evaluations[0].target) if evaluations else "none"
    return f"Comparison: {_count(len(evaluations), 'evaluation')} ({methods}), target {target}\n  {_listed(metrics)}"


def quoted(text: str) -> str:
    """A text between quotes, shortened, with what cannot be seen escaped."""
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…")


def _listed(texts: Iterable[str]) -> str:
    some = list(texts)
    more = f" and {len(some) - MOST_METRICS} more" if len(some) > MOST_METRICS else ""
    return ", ".join(some[:MOST_METRICS]) + more


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

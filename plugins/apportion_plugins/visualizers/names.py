"""Names of evaluations that are shown together."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.results.evaluation import Comparison, Evaluation
from apportion_plugins.visualizers.labels import one_line

__all__ = ["evaluation_names"]


def evaluation_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """A unique name for each on one line: its method, with what tells it apart if needed."""
    return [one_line(name) for name in Comparison(evaluations).names]

"""Names of evaluations that are shown together."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.results.evaluation import Evaluation
from apportion.results.naming import distinct_names
from apportion_plugins.visualizers.labels import one_line

__all__ = ["evaluation_names"]


def evaluation_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """A unique name for each: its method, with estimand and number if needed."""
    return distinct_names([(one_line(one.method), one_line(one.estimand)) for one in evaluations])

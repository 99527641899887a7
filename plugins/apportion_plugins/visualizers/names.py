"""Names of evaluations that are shown together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from apportion.results.evaluation import Evaluation
from apportion_plugins.visualizers.labels import one_line

__all__ = ["evaluation_names"]


def evaluation_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """A unique name for each: its method, with estimand and number if needed."""
    names = [one_line(one.method) for one in evaluations]
    if len(set(names)) < len(names):
        names = [f"{name} ({one_line(one.estimand)})" for name, one in zip(names, evaluations, strict=True)]
    often, so_far = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        so_far[name] += 1
        numbered.append(f"{name} #{so_far[name]}" if often[name] > 1 else name)
    return numbered

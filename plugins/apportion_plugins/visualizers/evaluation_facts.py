"""Measurements of evaluations as texts, shared by the views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from apportion.errors import counted
from apportion.protocols.metrics import Measurement
from apportion.results.evaluation import Evaluation
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.names import evaluation_names
from apportion_plugins.visualizers.numbers import INTERVAL, Numbers

__all__ = ["MetricTable", "estimands", "evaluation_facts", "metric_table"]


@dataclass(frozen=True)
class MetricTable:
    """A row for each metric.

    Attributes:
        heads: heads of the columns of numbers: for each evaluation a value and an error, then the yardstick, if any.
        rows: name of the metric, which direction is better, and the numbers; empty where nothing was measured.
    """

    heads: list[str]
    rows: list[tuple[str, str, list[str]]]


def estimands(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """The name of each evaluation, and what its attribution estimates."""
    of = [f" of the {one_line(each.scored)}" if each.scored else "" for each in evaluations]
    names = evaluation_names(evaluations)
    return [(name, one_line(each.estimand) + what) for name, each, what in zip(names, evaluations, of, strict=True)]


def metric_table(evaluations: Sequence[Evaluation]) -> MetricTable:
    """The measurements of evaluations of one target."""
    has_yardsticks = any(one.random for one in evaluations)
    names = evaluation_names(evaluations) if len(evaluations) > 1 else ["value"]
    heads = [head for name in names for head in (name, "±")] + ["random order"] * has_yardsticks
    rows = []
    for metric in dict.fromkeys(name for one in evaluations for name in one.measurements):
        measured = [one for one in evaluations if metric in one.measurements]
        cells = [cell for one in evaluations for cell in _cells(one.measurements.get(metric))]
        cells += [_random(measured[0], metric)] * has_yardsticks
        better = "↑ higher" if measured[0].higher_is_better[metric] else "↓ lower"
        rows.append((one_line(metric), better, cells))
    return MetricTable(heads, rows)


def evaluation_facts(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Size, cost, seed and notes, as names and texts."""
    anew = sum(one.evaluations for one in evaluations)
    facts = [
        ("features", f"{evaluations[0].n_features:,}"),
        ("cost", counted(anew, "new evaluation")),
        ("seed", str(evaluations[0].seed)),
    ]
    if any(m.std_error is not None for one in evaluations for m in one.measurements.values()):
        facts.append(("note", f"±: 95 % interval, {INTERVAL} standard errors of the metric's own draws."))
    orders = max((len(some) for one in evaluations for some in one.random.values()), default=0)
    if orders:
        facts.append(("note", f"Random order: the mean over {orders} random orders of the features, as a yardstick."))
    return facts


def _cells(found: Measurement | None) -> tuple[str, str]:
    """Value and half-width of its interval; empty if nothing was measured, or if it is exact."""
    if found is None:
        return "", ""
    numbers = Numbers([found.value])
    if found.std_error is None:
        return numbers.plain(found.value), ""
    return numbers.plain(found.value), numbers.plain(INTERVAL * found.std_error)


def _random(one: Evaluation, metric: str) -> str:
    """Value of a metric for random orders; empty if it was not measured."""
    value = one.random_value(metric)
    return "" if math.isnan(value) else Numbers([value]).plain(value)

"""Measurements of evaluations as texts, shared by the views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from apportion.errors import counted, listing
from apportion.protocols.metrics import Measurement
from apportion.results.evaluation import Comparison, Evaluation
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.names import evaluation_names
from apportion_plugins.visualizers.numbers import INTERVAL, Numbers

__all__ = [
    "MetricColumn",
    "MetricTable",
    "cost_columns",
    "estimands",
    "evaluation_facts",
    "metric_columns",
    "metric_table",
]

FOR_BANZHAF = ("lds", "infidelity")
"""Metrics that Banzhaf values win by construction, because they draw each feature with probability one half."""
BY_CHANCE = "beats"
"""Head of the column with the share of random orders than which a result does better."""


@dataclass(frozen=True)
class MetricTable:
    """A row for each metric.

    Attributes:
        heads: heads of the columns of numbers: a value and an error, then the yardstick, if any.
        rows: name of the metric, which direction is better, and the numbers; empty where nothing was measured.
    """

    heads: list[str]
    rows: list[tuple[str, str, list[str]]]


@dataclass(frozen=True)
class MetricColumn:
    """Facts of one kind about several results.

    Attributes:
        head: name of a metric and its better direction, or of a cost.
        cells: a text for each result; empty where nothing was measured.
    """

    head: str
    cells: list[str]


def estimands(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """The name of each evaluation, and what its attribution estimates."""
    of = [f" of the {one_line(each.scored)}" if each.scored else "" for each in evaluations]
    kinds = ["" if each.signed else " (magnitudes)" for each in evaluations]
    names = evaluation_names(evaluations)
    found = zip(names, evaluations, of, kinds, strict=True)
    return [(name, one_line(each.estimand) + what + kind) for name, each, what, kind in found]


def metric_table(one: Evaluation) -> MetricTable:
    """The measurements of one evaluation."""
    has_yardsticks = bool(one.random)
    rows = []
    for metric, found in one.measurements.items():
        cells = [*_cells(found), *([_random(one, metric)] if has_yardsticks else [])]
        rows.append((one_line(metric), _better(one, metric), cells))
    return MetricTable(["value", "±", *(["random order"] if has_yardsticks else [])], rows)


def cost_columns(evaluations: Sequence[Evaluation]) -> list[MetricColumn]:
    """Evaluations, tokens and seconds that each attribution took; none if that is unknown of all."""
    if all(one.provenance is None for one in evaluations):
        return []
    rows = [one.cost for one in evaluations]
    evaluated, tokens = ([_whole(row[i]) for row in rows] for i in (0, 1))
    seconds = ["" if math.isnan(row[2]) else f"{row[2]:#.3g}".rstrip(".") for row in rows]
    return [MetricColumn("evaluations", evaluated), MetricColumn("tokens", tokens), MetricColumn("seconds", seconds)]


def metric_columns(evaluations: Sequence[Evaluation]) -> list[list[MetricColumn]]:
    """For each metric its values, and the share of random orders that each result beats, if they were measured."""
    found = []
    for metric in Comparison(evaluations).metrics:
        measured = [one if metric in one.measurements else None for one in evaluations]
        first = next(one for one in measured if one is not None)
        head = f"{one_line(metric)} {_better(first, metric).partition(' ')[0]}"
        columns = [MetricColumn(head, ["" if one is None else _value(one[metric]) for one in measured])]
        shares = [math.nan if one is None else one.percentile(metric) for one in measured]
        if not all(map(math.isnan, shares)):
            columns.append(MetricColumn(BY_CHANCE, [_percent(share) for share in shares]))
        found.append(columns)
    return found


def evaluation_facts(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """Size, cost, seed and notes, as names and texts."""
    anew = sum(one.evaluations for one in evaluations)
    several = len(evaluations) > 1
    facts = [
        ("features", f"{evaluations[0].n_features:,}"),
        ("cost", counted(anew, "new evaluation") + (" for all metrics and results together" if several else "")),
        ("seed", str(evaluations[0].seed)),
    ]
    if any(m.std_error is not None for one in evaluations for m in one.measurements.values()):
        facts.append(("note", f"±: 95 % interval, {INTERVAL} standard errors of the metric's own draws."))
    orders = max((len(some) for one in evaluations for some in one.random.values()), default=0)
    if orders and several:
        facts.append(
            ("note", f"Beats: the share of {orders} random orders of its values than which a result is better.")
        )
    elif orders:
        facts.append(("note", f"Random order: the mean over {orders} random orders of the features, as a yardstick."))
    if len({one.estimand for one in evaluations}) > 1 and any(
        name in one for one in evaluations for name in FOR_BANZHAF
    ):
        facts.append(("note", f"Not for comparing estimands: {listing(FOR_BANZHAF)}. They favour Banzhaf values."))
    unsigned = [name for name, one in zip(evaluation_names(evaluations), evaluations, strict=True) if not one.signed]
    if unsigned:
        which = "These values" if not several else f"The values of {listing(unsigned)}"
        facts.append(("note", f"{which} are magnitudes: metrics take the largest for what raises the score most."))
    return facts


def _better(one: Evaluation, metric: str) -> str:
    return "↑ higher" if one.higher_is_better[metric] else "↓ lower"


def _cells(found: Measurement) -> tuple[str, str]:
    """Value and half-width of its interval; the latter is empty if the value is exact."""
    numbers = Numbers([found.value])
    if found.std_error is None:
        return numbers.plain(found.value), ""
    return numbers.plain(found.value), numbers.plain(INTERVAL * found.std_error)


def _value(found: Measurement) -> str:
    value, half = _cells(found)
    return f"{value} ± {half}" if half else value


def _random(one: Evaluation, metric: str) -> str:
    """Value of a metric for random orders; empty if it was not measured."""
    value = one.random_value(metric)
    return "" if math.isnan(value) else Numbers([value]).plain(value)


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{round(100 * share)} %"


def _whole(number: float) -> str:
    return "" if math.isnan(number) else f"{int(number):,}"

"""Evaluations: the faithfulness of attributions, measured by metrics; and comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, overload

from apportion.errors import InputError, ResultError, counted, listing, unknown_name
from apportion.options import check_options
from apportion.phrases import quoted
from apportion.protocols.metrics import Measurement
from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.display import as_html, plugins_or_installed, print_view
from apportion.results.html_view import HtmlView
from apportion.results.naming import distinct_names, naming_facts
from apportion.results.provenance import Provenance
from apportion.results.result_json import plain
from apportion.results.scored import PLAIN
from apportion.results.tables import dataframe

if TYPE_CHECKING:
    import pandas as pd

    from apportion.hooks.manager import Plugins

__all__ = ["Comparison", "Evaluation", "compare"]

SCHEMA = "apportion.evaluation"
SCHEMA_VERSION = 1
COSTS = ("evaluations", "forwarded_tokens", "seconds")
TIED = 1e-9
"""Difference, relative to the largest value, up to which a random order counts as equal."""
SHOWN = 6
"""Maximum number of metrics in a short text."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Measurements of one attribution by several metrics, in the order in which they were requested.

    Attributes:
        measurements: each metric's measurement, by name; ``evaluation["lds"]`` for short.
        higher_is_better: for each metric, true if a larger value means a more faithful attribution.
        options: options of each metric, defaults included.
        method: the attribution's method.
        estimand: the attribution's estimand.
        unit: unit of the scores that metrics compare, such as ``"nats"``.
        target_fn: name of the target function, which gives these scores.
        scored: what it measures, such as ``"perplexity of the target"``; empty for the target's log-probability.
        target: text of the target.
        contrast: text that the target is compared with; ``None`` if the attribution has no contrast.
        n_features: number of features.
        seed: seed of the random draws.
        evaluations: distinct model inputs that were scored now for the metrics and their yardsticks. What the run had
            scored is not among them, unless the result was read from a file and its cache is not there.
        random: for each metric with a yardstick, such as ``"deletion"``, its measurements of the same values in random
            order: in some orders, and in the reverse of each. Results that are evaluated together have them for every
            metric.
        plugins: plugins that provide views; not saved.
        provenance: the attribution's provenance, with its cost and budget; ``None`` for an evaluation made by hand.
        signed: the attribution's values have a sign; magnitudes (``False``) only rank features.
    """

    measurements: Mapping[str, Measurement]
    higher_is_better: Mapping[str, bool]
    options: Mapping[str, Mapping[str, Any]]
    method: str
    estimand: str
    unit: str
    n_features: int
    target: str = ""
    contrast: str | None = None
    seed: int = 0
    evaluations: int = 0
    random: Mapping[str, tuple[Measurement, ...]] = field(default_factory=dict)
    plugins: Plugins | None = field(default=None, repr=False)
    target_fn: str = PLAIN
    scored: str = ""
    provenance: Provenance | None = None
    signed: bool = True

    def random_value(self, metric: str) -> float:
        """Mean of a metric over the random orders; NaN if it was not measured for any.

        Raises:
            UnknownNameError: the metric was not measured.
        """
        self[metric]
        found = self.random.get(metric, ())
        return sum(one.value for one in found) / len(found) if found else math.nan

    @property
    def cost(self) -> tuple[float, float, float]:
        """Evaluations (also those from a cache), forwarded tokens and seconds of the attribution; NaN if unknown."""
        made = self.provenance
        if made is None:
            return (math.nan,) * 3
        return made.evaluations + made.cached, made.forwarded_tokens, made.seconds

    def percentile(self, metric: str) -> float:
        """Share of the random orders, from 0 to 1, than which this attribution does better; ties count half.

        NaN if the metric was not measured for any. With few orders it is coarse: of 4, it is a multiple of 1/8.

        Raises:
            UnknownNameError: the metric was not measured.
        """
        value, found = self[metric].value, self.random.get(metric, ())
        direction = 1 if self.higher_is_better[metric] else -1
        ahead = [direction * (value - one.value) for one in found]
        tied = TIED * max((abs(one.value) for one in found), default=0.0)
        wins = sum(1.0 if lead > tied else 0.5 if lead >= -tied else 0.0 for lead in ahead)
        return wins / len(found) if found else math.nan

    def __getitem__(self, metric: str) -> Measurement:
        """The measurement by one metric: ``evaluation["lds"]``.

        Raises:
            UnknownNameError: the metric was not measured.
        """
        if metric not in self.measurements:
            raise unknown_name("metric of this evaluation", str(metric), self.measurements)
        return self.measurements[metric]

    def __contains__(self, metric: object) -> bool:
        return metric in self.measurements

    def show(self) -> None:
        """Print a table in the terminal: each metric's value, error, and direction."""
        compare([self]).show()

    def to_html(self) -> HtmlView:
        """Convert to HTML: the same table, which notebooks display and ``save`` writes to a file."""
        return compare([self]).to_html()

    def plot(self, metric: str | None = None, **options: Any) -> Any:
        """Draw the measurements of one metric.

        Args:
            metric: name of a metric that can draw, such as ``"deletion"``, which draws the deletion and insertion
                curves; ``None`` for the first measured metric that can draw.
            **options: options of the plot; unknown ones are rejected.

        Returns:
            A matplotlib ``Figure``.

        Raises:
            InputError: no measured metric can draw, this one cannot or was not measured, or an option is unknown.
        """
        return compare([self]).plot(metric, **options)

    def to_dataframe(self) -> pd.DataFrame:
        """Convert to a pandas ``DataFrame``, one row per metric.

        Raises:
            ApportionError: pandas is not installed.
        """
        columns = ["metric", "value", "std_error", "random_order", "higher_is_better"]
        return compare([self]).to_dataframe()[columns]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain Python values; NaN becomes ``None``."""
        apart = ("measurements", "random", "plugins", "provenance")
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        own["provenance"] = None if self.provenance is None else asdict(self.provenance)
        found = {name: _plain(one) for name, one in self.measurements.items()}
        random = {name: [_plain(one) for one in some] for name, some in self.random.items()}
        data: dict[str, Any] = plain(
            {"schema": SCHEMA, "version": SCHEMA_VERSION, **own, "measurements": found, "random": random}
        )
        return data

    def to_json(self, *, ascii_only: bool = False) -> str:
        """Convert to JSON; ``ascii_only`` escapes all other characters.

        Raises:
            ResultError: extras or options contain something that JSON cannot represent.
        """
        try:
            return json.dumps(self.to_dict(), ensure_ascii=ascii_only, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ResultError(
                f"The evaluation cannot be written as JSON: {error}. The extras and options of its metrics "
                f"({listing(self.measurements)}) may contain only finite numbers, strings, lists, dicts and arrays."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling and copying, without ``plugins``, which cannot leave the process."""
        return self.__dict__ | {"plugins": None}

    def _repr_html_(self) -> str:
        return self.to_html().fragment

    def __repr__(self) -> str:
        shown = [
            f"{name} {one.value:.3g}" + ("" if one.std_error is None else f" (standard error {one.std_error:.2g})")
            for name, one in self.measurements.items()
        ]
        against = "" if self.contrast is None else f" against {quoted(self.contrast)}"
        explained = f"  explained: {self.scored}\n" if self.scored else ""
        return (
            f"Evaluation: {self.method} ({self.estimand}) of {counted(self.n_features, 'feature')}, "
            f"target {quoted(self.target)}{against}\n"
            f"{explained}"
            f"  {listing(shown, SHOWN)}\n"
            f"  {counted(self.evaluations, 'new evaluation')}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Evaluations of several attributions of one target, side by side.

    Attributes:
        evaluations: at least one.
    """

    evaluations: Sequence[Evaluation]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each evaluation: its method, and facts that tell it apart, such as the budget or the seed."""
        return tuple(distinct_names([_facts(one) for one in self.evaluations]))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics that any of the evaluations measured."""
        return tuple(dict.fromkeys(name for found in self.evaluations for name in found.measurements))

    def show(self) -> None:
        """Print a table in the terminal, with a row per metric and a column per attribution."""
        print_view(self.evaluations[0].plugins, "render_evaluations", self.evaluations)

    def to_html(self) -> HtmlView:
        """Convert to HTML: the same table, which notebooks display and ``save`` writes to a file."""
        return as_html(self.evaluations[0].plugins, "render_evaluations", self.evaluations)

    def plot(self, metric: str | None = None, **options: Any) -> Any:
        """Draw all evaluations in one figure.

        Args:
            metric: as for ``Evaluation.plot``.
            **options: as for ``Evaluation.plot``.

        Raises:
            InputError: as for ``Evaluation.plot``.
        """
        registry = plugins_or_installed(self.evaluations[0].plugins)["metrics"]
        made = {name: registry.get(name).make() for name in self.metrics if name in registry}
        able = [name for name, one in made.items() if hasattr(one, "plot")]
        if not able or (metric is not None and metric not in able):
            wanted = "None of the metrics" if metric is None else f"{metric!r} is not among the metrics"
            can = sorted(entry.name for entry in registry if hasattr(entry.load(), "plot"))
            raise InputError(
                f"{wanted} that were measured here ({listing(self.metrics)}) {'can' if metric is None else 'and can'} "
                f"draw. Metrics that can: {listing(can)}."
            )
        chosen = made[metric or able[0]]
        check_options(f"plot of {metric or able[0]!r}", chosen.plot, options)
        return chosen.plot(self.evaluations, **options)

    def to_dataframe(self) -> pd.DataFrame:
        """Convert to a pandas ``DataFrame``, one row per attribution and metric.

        Beside the measurement, each row has the attribution's name and cost (evaluations, those from a cache included,
        tokens, seconds), and the share of the random orders than which it does better.

        Raises:
            ApportionError: pandas is not installed.
        """
        rows = [(one, name, found) for one in self.evaluations for name, found in one.measurements.items()]
        named = zip(self.names, self.evaluations, strict=True)
        return dataframe(
            {
                "result": [name for name, one in named for _ in one.measurements],
                "method": [one.method for one, _, _ in rows],
                "estimand": [one.estimand for one, _, _ in rows],
                "metric": [name for _, name, _ in rows],
                "value": [found.value for _, _, found in rows],
                "std_error": [0.0 if found.std_error is None else found.std_error for _, _, found in rows],
                "random_order": [one.random_value(name) for one, name, _ in rows],
                "percentile": [one.percentile(name) for one, name, _ in rows],
                "higher_is_better": [one.higher_is_better[name] for one, name, _ in rows],
                **{name: [one.cost[i] for one, _, _ in rows] for i, name in enumerate(COSTS)},
            }
        )

    def _repr_html_(self) -> str:
        return self.to_html().fragment

    def __repr__(self) -> str:
        one, methods = self.evaluations[0], listing(each.method for each in self.evaluations)
        against = "" if one.contrast is None else f" against {quoted(one.contrast)}"
        explained = f"  explained: {one.scored}\n" if one.scored else ""
        number = counted(len(self.evaluations), "evaluation")
        return (
            f"Comparison: {number} ({methods}), target {quoted(one.target)}{against}\n"
            f"{explained}  {listing(self.metrics, SHOWN)}"
        )


@overload
def compare(found: Iterable[Evaluation]) -> Comparison: ...


@overload
def compare(found: Iterable[Attribution], *, token: int | None = None) -> ResultComparison: ...


def compare(
    found: Iterable[Evaluation] | Iterable[Attribution], *, token: int | None = None
) -> Comparison | ResultComparison:
    """Put results or evaluations side by side, to show or tabulate them together.

    Args:
        found: attributions of one target to the same features, by different methods, models, budgets or seeds; or
            evaluations of such attributions.
        token: position of a target token, to compare what attributions say of it alone; ``None`` for the whole target.

    Returns:
        A ``ResultComparison`` of attributions, or a ``Comparison`` of evaluations. Both show, tabulate and draw them.

    Raises:
        InputError: there are none, some are neither, or they do not belong together: results that differ in features,
            target or contrast, or evaluations that differ in target, contrast, target function, unit, number of
            features or seed.
    """
    if isinstance(found, Evaluation | Attribution) or not isinstance(found, Iterable):
        raise InputError(
            f"compare takes a list of results or of evaluations, not {type(found).__name__}: compare([…])."
        )
    some: Sequence[object] = tuple(found)
    if not some:
        raise InputError("The list of results or evaluations must not be empty.")
    results = [one for one in some if isinstance(one, Attribution)]
    if len(results) == len(some):
        return ResultComparison(results, token)
    evaluations = [one for one in some if isinstance(one, Evaluation)]
    if len(evaluations) < len(some):
        kinds = sorted({type(one).__name__ for one in some})
        raise InputError(f"compare takes results or evaluations, all of one kind; these are: {listing(kinds)}.")
    if token is not None:
        raise InputError("token= is for attributions; evaluations measure the whole target.")
    _check_alike(evaluations)
    return Comparison(evaluations)


def _check_alike(evaluations: Sequence[Evaluation]) -> None:
    for name in ("target", "contrast", "target_fn", "unit", "n_features", "seed"):
        different = {repr(getattr(one, name)) for one in evaluations}
        if len(different) > 1:
            raise InputError(
                f"These evaluations differ in their {name} ({listing(sorted(different))}), so their numbers cannot be "
                "compared. Compare attributions of one prompt and target, evaluated with one seed."
            )


def _facts(one: Evaluation) -> tuple[str, ...]:
    """Facts for a distinct name; of an evaluation made by hand, as many, but most of them empty."""
    if one.provenance is None:
        return (one.method, one.estimand, "", one.target_fn, "", "")
    return (one.method, *naming_facts(one.provenance, one.estimand)[1:])


def _plain(found: Measurement) -> dict[str, Any]:
    return {"value": found.value, "std_error": found.std_error, "extras": found.extras}

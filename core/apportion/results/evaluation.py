"""How faithful an attribution is: what its metrics found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, ResultError, listing
from apportion.options import check_options
from apportion.protocols.metrics import Measurement
from apportion.results.result_json import plain
from apportion.results.tables import dataframe

if TYPE_CHECKING:
    import pandas as pd

    from apportion.hooks.manager import Plugins

__all__ = ["Comparison", "Evaluation", "compare"]

SCHEMA = "apportion.evaluation"
SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the metrics found about one attribution, in the order in which they were asked for.

    Attributes:
        measurements: what each metric found, by name; ``evaluation["lds"]`` for short.
        higher_is_better: whether a larger value of the metric means a more faithful attribution.
        options: of each metric, defaults included.
        method: of the attribution.
        estimand: of the attribution.
        unit: of the scores that metrics compare, such as ``"nats"``.
        target: the text that was explained.
        n_features: of the attribution.
        seed: of the metrics' draws.
        evaluations: distinct model inputs that were scored for the metrics; what the run had scored cost nothing.
        plugins: where views are found; not saved.
    """

    measurements: Mapping[str, Measurement]
    higher_is_better: Mapping[str, bool]
    options: Mapping[str, Mapping[str, Any]]
    method: str
    estimand: str
    unit: str
    n_features: int
    target: str = ""
    seed: int = 0
    evaluations: int = 0
    plugins: Plugins | None = field(default=None, repr=False)

    def __getitem__(self, metric: str) -> Measurement:
        return self.measurements[metric]

    def show(self) -> None:
        """Print a table in the terminal: each metric's value, error, and direction."""
        compare([self]).show()

    def plot(self, metric: str | None = None, **options: Any) -> Any:
        """A picture by a metric that can draw what it found.

        Args:
            metric: such as ``"deletion"``, which draws the deletion and insertion curves; ``None`` for the first one
                that was measured and can draw.
            **options: of the picture; unknown ones are refused.

        Returns:
            A matplotlib ``Figure``.

        Raises:
            InputError: no metric that was measured can draw, not this one, or an unknown option.
        """
        return compare([self]).plot(metric, **options)

    def to_dataframe(self) -> pd.DataFrame:
        """A pandas table, one row for each metric.

        Raises:
            ApportionError: pandas is not installed.
        """
        return compare([self]).to_dataframe().drop(columns=["method", "estimand"])

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values; NaN becomes ``None``."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("measurements", "plugins")}
        found = {
            name: {"value": m.value, "std_error": m.std_error, "extras": m.extras}
            for name, m in self.measurements.items()
        }
        data: dict[str, Any] = plain({"schema": SCHEMA, "version": SCHEMA_VERSION, **own, "measurements": found})
        return data

    def to_json(self, *, ascii_only: bool = False) -> str:
        """The same as JSON; ``ascii_only`` escapes all other characters.

        Raises:
            ResultError: extras or options hold something that JSON cannot.
        """
        try:
            return json.dumps(self.to_dict(), ensure_ascii=ascii_only, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ResultError(
                f"The evaluation cannot be written as JSON: {error}. The extras and options of its metrics "
                f"({listing(self.measurements)}) may hold finite numbers, texts, lists, dicts and arrays only."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        """For pickling and copying: everything but ``plugins``, which belong to a process."""
        return self.__dict__ | {"plugins": None}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Evaluations of several attributions of one target, side by side.

    Attributes:
        evaluations: at least one.
    """

    evaluations: Sequence[Evaluation]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Everything that any of them measured."""
        return tuple(dict.fromkeys(name for found in self.evaluations for name in found.measurements))

    def show(self) -> None:
        """Print a table in the terminal: a row for each metric, a column for each attribution."""
        from rich.console import Console

        view = self._plugins["visualizers"].get("terminal").make()
        if not hasattr(view, "render_evaluations"):
            raise ResultError("The visualizer 'terminal' has no render_evaluations, so it cannot show an evaluation.")
        Console().print(view.render_evaluations(self.evaluations))

    def plot(self, metric: str | None = None, **options: Any) -> Any:
        """A picture of all of them, as ``Evaluation.plot``.

        Args:
            metric: see there.
            **options: see there.

        Raises:
            InputError: see there.
        """
        registry = self._plugins["metrics"]
        made = {name: registry.get(name).make() for name in self.metrics if name in registry}
        able = [name for name, one in made.items() if hasattr(one, "plot")]
        if not able or (metric is not None and metric not in able):
            wanted = "None of the metrics" if metric is None else f"{metric!r} is not among the metrics"
            can = sorted(entry.name for entry in registry if hasattr(entry.load(), "plot"))
            raise InputError(
                f"{wanted} that were measured here ({listing(self.metrics)}) {'can' if metric is None else 'and can'} "
                f"draw. Measure one that can: {listing(can)}."
            )
        chosen = made[metric or able[0]]
        check_options(f"picture of {metric or able[0]!r}", chosen.plot, options)
        return chosen.plot(self.evaluations, **options)

    def to_dataframe(self) -> pd.DataFrame:
        """A pandas table, one row for each attribution and metric.

        Raises:
            ApportionError: pandas is not installed.
        """
        rows = [(one, name, found) for one in self.evaluations for name, found in one.measurements.items()]
        return dataframe(
            {
                "method": [one.method for one, _, _ in rows],
                "estimand": [one.estimand for one, _, _ in rows],
                "metric": [name for _, name, _ in rows],
                "value": [found.value for _, _, found in rows],
                "std_error": [0.0 if found.std_error is None else found.std_error for _, _, found in rows],
                "higher_is_better": [one.higher_is_better[name] for one, name, _ in rows],
            }
        )

    @property
    def _plugins(self) -> Plugins:
        from apportion.hooks.manager import installed_plugins

        return self.evaluations[0].plugins or installed_plugins()


def compare(evaluations: Sequence[Evaluation]) -> Comparison:
    """Evaluations side by side, to be shown, plotted, or made a table.

    Args:
        evaluations: of attributions of one target to the same features, by different methods.

    Raises:
        InputError: there are none, or they are not of one target and the same number of features.
    """
    found = tuple(evaluations)
    if not found:
        raise InputError("compare needs at least one evaluation, and the list is empty.")
    for name in ("target", "unit", "n_features", "seed"):
        different = {getattr(one, name) for one in found}
        if len(different) > 1:
            raise InputError(
                f"These evaluations differ in their {name} ({listing(map(repr, sorted(different)))}), so that their "
                "numbers cannot be compared. Compare attributions of one prompt and target, evaluated with one seed."
            )
    return Comparison(found)

"""Step scores as rows of numbers, one for each target token, shared by all views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.numbers import Numbers

__all__ = ["StepRow", "step_note", "step_rows"]


@dataclass(frozen=True)
class StepRow:
    """One step score.

    Attributes:
        name: its name.
        unit: its unit.
        values: its value at each target token; NaN where it is not finite.
        label: what it measures; empty if that is unknown.
    """

    name: str
    unit: str
    values: Float64[np.ndarray, " T"]
    label: str = ""

    @property
    def title(self) -> str:
        """Name and unit; the name alone if the unit repeats it."""
        return self.name if self.unit in ("", self.name) else f"{self.name} ({self.unit})"

    @property
    def texts(self) -> list[str]:
        """The values as text."""
        numbers = Numbers(self.values)
        return ["n/a" if np.isnan(value) else numbers.plain(float(value)) for value in self.values]


def step_rows(attribution: Attribution) -> list[StepRow]:
    """The step scores of a result, in the order in which they were asked for."""
    about = attribution.provenance.step_scores
    return [
        StepRow(
            one_line(name),
            one_line(attribution.step_units[name]) if attribution.step_units[name] else "",
            np.asarray(values),
            str(about.get(name, {}).get("label", "")),
        )
        for name, values in attribution.step_scores.items()
    ]


def step_note(attribution: Attribution) -> list[str]:
    """A note with the step scores of a target of one token, for pictures that have no place for them."""
    rows = step_rows(attribution)
    found = [f"{row.title} {row.texts[0]}" for row in rows if len(row.values) == 1]
    return [f"Step scores: {', '.join(found)}."] if found else []

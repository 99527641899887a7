"""The step scores of a run, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion.results.attribution import Attribution
from apportion.scoring.scorer import Tally

__all__ = ["StepRecord"]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Step scores of a run.

    Attributes:
        values: a value for each target token, by name; NaN where it is not finite.
        about: for each name, its target function, options, contrast, unit and label.
        tally: cost of what was read for them and for nothing else.
    """

    values: Mapping[str, Float64[np.ndarray, " T"]] = field(default_factory=dict)
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def of_result(cls, result: Attribution) -> StepRecord:
        """The step scores of a result that was read from a file, which cost nothing now."""
        return cls(result.step_scores, result.provenance.step_scores)

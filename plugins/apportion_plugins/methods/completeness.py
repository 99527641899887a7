"""Completeness: scores along a path add up to the change of the value from its start to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from apportion.errors import counted, listing

__all__ = ["Completeness", "advice", "notes_on_modules"]

LARGE = 0.05
"""Convergence delta, as a share of the change, from which on a note points it out."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """Sums of scores, and the changes of value that they should add up to: of one path, or of several.

    Attributes:
        total: sum of all scores of a path, of each of O outputs.
        start: values of all outputs at the baseline.
        end: values of all outputs at the prompt.
    """

    total: Float[Tensor, "*paths O"]
    start: Float[Tensor, "*paths K"]
    end: Float[Tensor, " K"]

    @property
    def change(self) -> Float[Tensor, "*paths O"]:
        """The value at the prompt minus that at the baseline."""
        return (self.end - self.start)[..., : self.total.shape[-1]]

    @property
    def delta(self) -> Float[Tensor, "*paths O"]:
        """The sum minus the change."""
        return self.total.double().cpu() - self.change

    def extras(self) -> Mapping[str, np.ndarray]:
        """``baseline_value`` and ``convergence_delta``: the whole target, then each token if they are scored."""
        start = self.start[..., : self.total.shape[-1]]
        found = {"baseline_value": start.numpy().copy(), "convergence_delta": self.delta.numpy()}
        for array in found.values():
            array.setflags(write=False)
        return found

    def notes(self, advice: str) -> tuple[str, ...]:
        """A note if the deltas of the whole target are large.

        Args:
            advice: what makes them smaller.
        """
        change, delta = (float(numbers[..., 0].abs().sum()) for numbers in (self.change, self.delta))
        if delta <= LARGE * change:
            return ()
        if self.total.ndim > 1:
            return (
                f"the scores along {len(self.total)} paths should add up to changes of the score of {change:.3g} in "
                f"all, and miss them by {delta:.3g} in all (convergence_delta): {advice}",
            )
        return (
            f"the scores add up to {float(self.total[0]):.3g}, but the score changes by {float(self.change[0]):.3g} "
            f"from the baseline to the prompt (convergence_delta {float(self.delta[0]):.3g}): {advice}",
        )


def notes_on_modules(names: Sequence[str], complete: Sequence[Completeness], advice: str) -> tuple[str, ...]:
    """A note if scores of modules miss the change of the score.

    Args:
        names: names of the modules.
        complete: the completeness of each, or one of all of them together.
        advice: what makes deltas smaller, or why they are large.
    """
    if len(complete) == 1:
        return complete[0].notes(advice)
    missing = [name for name, one in zip(names, complete, strict=True) if one.notes(advice)]
    if not missing:
        return ()
    return (
        f"the scores of {counted(len(missing), 'module')} ({listing(missing, limit=3)}) miss the change of the score "
        f"that they explain by more than {LARGE:.0%} (convergence_delta): {advice}",
    )


def advice(steps: int) -> str:
    """Advice on how the deltas of a path become smaller.

    Args:
        steps: number of its points.
    """
    return f"use more than {counted(steps, 'step')}, or another baseline"

"""Completeness: scores along a path add up to the change of the value from its start to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

__all__ = ["Completeness"]

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
        share = f"{delta / change:.0%}" if change else f"{delta:.3g}"
        return (
            f"the scores miss the change of the target's score from the baseline to the prompt, {change:.3g}, by "
            f"{share} (convergence_delta): {advice}",
        )

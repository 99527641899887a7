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
    """Sums of scores beside the change of the value that they should add up to, for each of O outputs.

    Attributes:
        total: sum of all tokens' scores.
        start: value of each output at the baseline.
        end: value of each output at the prompt.
    """

    total: Float[Tensor, " O"]
    start: Float[Tensor, " K"]
    end: Float[Tensor, " K"]

    @property
    def delta(self) -> Float[Tensor, " O"]:
        """The sum minus the change."""
        outputs = len(self.total)
        return self.total.double().cpu() - (self.end - self.start)[:outputs]

    def extras(self) -> Mapping[str, np.ndarray]:
        """``baseline_value`` and ``convergence_delta``: the whole target, then each token if they are scored."""
        found = {"baseline_value": self.start[: len(self.total)].numpy(), "convergence_delta": self.delta.numpy()}
        for array in found.values():
            array.setflags(write=False)
        return found

    def notes(self, advice: str) -> tuple[str, ...]:
        """A note if the delta of the whole target is large.

        Args:
            advice: what makes it smaller.
        """
        change, delta = float(self.end[0] - self.start[0]), float(self.delta[0])
        if abs(delta) <= LARGE * abs(change):
            return ()
        return (
            f"the scores of all tokens add up to {float(self.total[0]):.3g}, but the score changes by {change:.3g} "
            f"from the baseline to the prompt (convergence_delta): {advice}",
        )

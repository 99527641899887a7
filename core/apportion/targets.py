"""Targets, and the functions that turn a model's scores into the values of the game."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

__all__ = ["Needs", "Scores", "Target", "TargetFunction"]


class Needs(enum.Enum):
    """What a target function reads.

    ``LOG_PROBS``: the log-probability of each target token, the cheapest: the session never keeps the
    vocabulary. ``LOGITS``: the whole vocabulary at each target position, handed over batch by batch
    and never stacked over all perturbations.
    """

    LOG_PROBS = "log_probs"
    LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class Target:
    """The output that is explained.

    Attributes:
        ids: its T token ids.
        tokens: a readable text for each of them.
        text: the whole.
        generated: whether the model wrote it (``target=None``).
    """

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str
    generated: bool = False


@dataclass(frozen=True, slots=True)
class Scores:
    """What a session found for S model inputs; the field that the target function ``needs`` is set.

    Attributes:
        log_probs: natural logarithms, fp32 or better.
        logits: at the positions that predict each target token.
    """

    log_probs: Float[Tensor, "S T"] | None = None
    logits: Float[Tensor, "S T V"] | None = None


@runtime_checkable
class TargetFunction(Protocol):
    """Turns scores into values: column 0 for the whole target, then one column for each token."""

    @property
    def needs(self) -> Needs:
        """Which field of ``Scores`` is read."""
        ...

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Values of S inputs, K = 1 + T. Called once for each batch."""
        ...

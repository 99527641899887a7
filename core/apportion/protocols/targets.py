"""Targets, and the functions that turn a model's scores into the values of the game."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

__all__ = ["EMPTY", "FULL", "Needs", "Scores", "Target", "TargetFunction"]

FULL, EMPTY = "full", "empty"
"""Prompts that a target function may refer to by name: with all features, and with none."""


class Needs(enum.Enum):
    """What a target function reads.

    ``LOG_PROBS``: the log-probability of each target token, the cheapest: the session never keeps the
    vocabulary. ``LOGITS``: the whole vocabulary at each target position, handed over a few rows at a time
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
        contrast: another target that it is compared with, of any length.
    """

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str
    generated: bool = False
    contrast: Target | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """What a session found for S model inputs; the field that the target function ``needs`` is set.

    Attributes:
        log_probs: natural logarithms, fp32 or better.
        logits: at the positions that predict each target token.
        contrast: the same for the contrast target, after the same prompts; for functions that are ``contrastive``.
        reference: the same for one prompt (S = 1) that all are compared with; for functions with a ``reference``.
    """

    log_probs: Float[Tensor, "S T"] | None = None
    logits: Float[Tensor, "S T V"] | None = None
    contrast: Scores | None = None
    reference: Scores | None = None


@runtime_checkable
class TargetFunction(Protocol):
    """Turns scores into values: column 0 for the whole target, then one column for each token.

    Optional attributes, read when they exist:

    - ``contrastive``: ``True`` for functions that compare with another target (``contrast=``), which is then scored
      after the same prompts and must be given.
    - ``reference``: a prompt that all prompts are compared with: ``"full"`` (all features), ``"empty"`` (none), or any
      other text, which is a prompt of its own.
    - ``unit``: what one unit of the values is, such as ``"nats"``; for tables and plots.

    Options of a target function are keyword-only parameters of its constructor (``target_options={…}``).
    """

    @property
    def needs(self) -> Needs:
        """Which field of ``Scores`` is read."""
        ...

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Values of S inputs, K = 1 + T. Called once for each batch, or part of one."""
        ...

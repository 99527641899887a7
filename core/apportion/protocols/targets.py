"""Targets, and the functions that turn a model's scores into the values of the game."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

__all__ = ["EMPTY", "FULL", "Needs", "Scores", "Target", "TargetFunction"]

FULL, EMPTY = "full", "empty"
"""Prompts that a target function may refer to by name: the one with all features, and the one with none."""


class Needs(enum.Enum):
    """The scores that a target function needs.

    ``LOG_PROBS``: the log-probability of each target token. This is the cheapest, because the session never stores
    scores of the whole vocabulary. ``LOGITS``: scores of the whole vocabulary at each target position, passed a few
    rows at a time and never stacked over all perturbations. ``TEXT``: the texts that the model writes after each
    prompt, which a server can give that scores nothing.
    """

    LOG_PROBS = "log_probs"
    LOGITS = "logits"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Target:
    """The output to explain.

    Attributes:
        ids: its T token ids.
        tokens: readable text of each token.
        text: text of the whole target.
        generated: true if the model wrote it (``target=None``).
        contrast: another target to compare it with, of any length.
        notes: sentences for the result, on how the text became these tokens.
        end: why a generated target ends where it does: ``"model"`` (the model ended it), ``"stop"`` (a stop text
            followed) or ``"limit"`` (it was cut off); ``None`` if it was given.
    """

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str
    generated: bool = False
    contrast: Target | None = None
    notes: tuple[str, ...] = ()
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of S model inputs; the field that the target function ``needs`` is set.

    Attributes:
        log_probs: natural logarithms of probabilities, fp32 or better.
        logits: logits at the positions that predict each target token.
        contrast: scores of the contrast target after the same prompts, for functions that are ``contrastive``.
        reference: scores of the one prompt (S = 1) that all others are compared with, for functions with a
            ``reference``.
        texts: S texts that the model wrote, without control tokens; several may have been written after one prompt.
    """

    log_probs: Float[Tensor, "S T"] | None = None
    logits: Float[Tensor, "S T V"] | None = None
    contrast: Scores | None = None
    reference: Scores | None = None
    texts: tuple[str, ...] | None = None


@runtime_checkable
class TargetFunction(Protocol):
    """Turns scores into values: column 0 for the whole target, then one column per token.

    A function that needs ``TEXT`` has column 0 only, K = 1: the value of each text. ``target.text`` is then the text to
    compare with, and the mean over the texts of a prompt is the value of the prompt. Such a function is neither
    ``contrastive``, nor does it have a ``reference``.

    Optional attributes, read if they exist:

    - ``contrastive``: ``True`` for functions that compare with another target (``contrast=``). That target must be
      given, and is scored after the same prompts.
    - ``reference``: a prompt that all prompts are compared with: ``"full"`` (all features), ``"empty"`` (no features),
      or the text of another prompt.
    - ``additive``: ``True`` if the value of the whole target is always the sum of the values of its tokens, which saves
      gradient methods a backward pass.
    - ``unit``: unit of the values, such as ``"nats"``, for tables and plots.
    - ``label``: what the values measure, as a noun phrase without an article, such as ``"perplexity of the target"``;
      views say ``value of NAME`` without one.
    - ``lacking``: what must be given or installed before it can be called, as the end of a sentence that begins with
      its name, such as ``"needs an encoder: …"``; else empty.
    - ``check(target)``: raises ``InputError`` for a target that it cannot compare with; called before anything is
      scored. For functions that need ``TEXT``.
    - ``rise``: what a higher value means, such as ``"makes the target less likely"``, where the label does not say it.

    Options of a target function are keyword-only parameters of its constructor (``target_options={…}``).
    """

    @property
    def needs(self) -> Needs:
        """The field of ``Scores`` that is read."""
        ...

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Compute the values of S inputs or texts. Called once per batch, or per part of a batch."""
        ...

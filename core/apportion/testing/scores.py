"""Random scores as a session returns them, with everything that a target function needs."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.targets import Needs, Scores, Target, TargetFunction
from apportion.testing.randomness import generator

__all__ = ["Logits", "is_contrastive", "random_scores", "random_target", "reads_texts", "reference_of", "scores_of"]

VOCABULARY = 17
WORDS = ("one", "two", "three", "Four.", "größer", "🙂", '{"a": 1}', "")

Logits = dict[str, Float[Tensor, "S T V"]]
"""Logits that scores are computed from: ``logits``, and ``contrast`` and ``reference`` if a function needs them."""


def is_contrastive(target_fn: TargetFunction) -> bool:
    """True if the function compares with another target."""
    return bool(getattr(target_fn, "contrastive", False))


def reference_of(target_fn: TargetFunction) -> str | None:
    """The prompt that the function compares with, if any."""
    found = getattr(target_fn, "reference", None)
    assert found is None or isinstance(found, str), f"`reference` is {found!r}; it must be a string or None."
    return found


def reads_texts(target_fn: TargetFunction) -> bool:
    """True if the function reads texts."""
    return target_fn.needs is Needs.TEXT


def random_target(tokens: int) -> Target:
    """A target with a contrast of three tokens."""
    texts = [tuple((7 * i + first) % VOCABULARY for i in range(n)) for n, first in ((tokens, 3), (3, 5))]
    made, contrast = (Target(ids, tuple(map(str, ids)), " ".join(map(str, ids))) for ids in texts)
    return replace(made, contrast=contrast)


def scores_of(logits: Float[Tensor, "S T V"], target_fn: TargetFunction, target: Target) -> Scores:
    """The scores that the function would read, computed from these logits."""
    if target_fn.needs is Needs.LOGITS:
        return Scores(logits=logits.clone())
    positions = torch.arange(len(target.ids))
    return Scores(log_probs=logits.log_softmax(-1)[:, positions, torch.tensor(target.ids)])


def random_scores(target_fn: TargetFunction, rows: int, target: Target) -> tuple[Scores, Logits]:
    """Random scores of some inputs, and the logits that they are computed from."""
    draw = generator(rows)
    if reads_texts(target_fn):
        return Scores(texts=tuple(_random_text(draw, target.text) for _ in range(rows))), {}

    def random(count: int, of: Target) -> tuple[Scores, Float[Tensor, "S T V"]]:
        logits = 3 * torch.randn(count, len(of.ids), VOCABULARY, generator=draw, dtype=torch.float64)
        return scores_of(logits, target_fn, of), logits

    scores, logits = random(rows, target)
    found: Logits = {"logits": logits}
    if is_contrastive(target_fn) and target.contrast is not None:
        contrast, found["contrast"] = random(rows, target.contrast)
        scores = replace(scores, contrast=contrast)
    if reference_of(target_fn) is not None:
        reference, found["reference"] = random(1, target)
        scores = replace(scores, reference=reference)
    return scores, found


def _random_text(draw: torch.Generator, target: str) -> str:
    """A text of a few words, or the target."""
    words = [*WORDS, target]
    count = int(torch.randint(4, (1,), generator=draw))
    return " ".join(words[i] for i in torch.randint(len(words), (count,), generator=draw).tolist())

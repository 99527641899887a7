"""The tokens of a target as features: each but the last may be absent from what the model reads before later ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.phrases import unique_names
from apportion.protocols.features import Feature, Level
from apportion.protocols.inputs import Alternatives, InputAdapter
from apportion.protocols.row import ModelInput

if TYPE_CHECKING:
    from apportion.protocols.targets import Target

__all__ = ["MARK", "GeneratedAdapter"]

MARK = "→ "
"""Precedes the names of target tokens, because the same word may occur in the prompt."""

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})
"""A name that is white space would be lost after the mark."""

Answer = tuple[tuple[int, ...], ...]


class GeneratedAdapter:
    """A prompt's adapter, whose F features are followed by one for each of the T target tokens but the last.

    An absent target token is left out of what the model reads before the tokens that follow it, or replaced if all
    absent features of the prompt are replaced by the same tokens (``baseline_ids``). It is scored nevertheless, and
    with all its tokens present the target reads as ever. Everything else is as the prompt's adapter has it.

    Args:
        adapter: the prompt's adapter.
        target: the target.

    Attributes:
        generated: feature of each target token but the last.
    """

    def __init__(self, adapter: InputAdapter, target: Target) -> None:
        self._adapter = adapter
        self._ids = target.ids[:-1]
        self._baseline = tuple(getattr(adapter, "baseline_ids", ()))
        self._own = own = tuple(adapter.features)
        named = [feature.name for feature in own]
        marked = [f"{MARK}{text.strip() or text.translate(_VISIBLE)}" for text in target.tokens[:-1]]
        names = unique_names([*named, *marked])[len(own) :]
        replaced = own[0].baseline if self._baseline else ""
        self.features: tuple[Feature, ...] = own + tuple(
            Feature(name, text, baseline=replaced, generated=place)
            for place, (name, text) in enumerate(zip(names, target.tokens, strict=False))
        )
        self.generated: tuple[int | None, ...] = tuple(range(len(own), len(self.features)))
        self.segments = tuple(getattr(adapter, "segments", ()))
        self.pictures = tuple(getattr(adapter, "pictures", ()))
        self.feature_of_token = getattr(adapter, "feature_of_token", None)
        self.draws: int = getattr(adapter, "draws", 1)
        self.notes: Sequence[str] = getattr(adapter, "notes", ())
        self.levels = self._levels(getattr(adapter, "levels", ()))

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput | Alternatives]:
        """Render each coalition of the prompt's features once, and add what the model reads of the target."""
        prompts, which = torch.unique(mask[:, : len(self._own)], dim=0, return_inverse=True)
        rendered = self._adapter.render(prompts)
        answers = map(self._answer, mask[:, len(self._own) :].tolist())
        return [_with_answer(rendered[i], answer) for i, answer in zip(which.tolist(), answers, strict=True)]

    def _answer(self, present: Sequence[bool]) -> Answer | None:
        """The tokens that the model reads in place of each target token; ``None`` for the target itself."""
        own = tuple((token,) for token in self._ids)
        read = tuple(one if here else self._baseline for one, here in zip(own, present, strict=True))
        return None if read == own else read

    def _levels(self, levels: Sequence[Level]) -> tuple[Level, ...]:
        """The prompt's levels, in which the target is one more group, below the level that parts the two."""
        tokens, own = len(self._ids), len(self._own)
        if not tokens or own + tokens < 3:
            return tuple(levels)
        parts = Level("parts", (0,) * own + (1,) * tokens, ("prompt", "target"))
        inner = [
            Level(level.name, (*level.groups, *[len(level.texts)] * tokens), (*level.texts, "target"))
            for level in levels
        ]
        return (parts, *(level for level in inner if len(level.texts) < own + tokens))


def _with_answer(item: ModelInput | Alternatives, answer: Answer | None) -> ModelInput | Alternatives:
    if answer is None:
        return item
    if isinstance(item, Alternatives):
        return Alternatives(tuple(replace(one, answer=answer) for one in item.inputs))
    return replace(item, answer=answer)

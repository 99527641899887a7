"""The target function of contextual cues: each chosen token against the one that the model says without the context."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.options import unit_of
from apportion.protocols.targets import Needs, Scores, Target, TargetFunction
from apportion.results.recipe import CONTEXT_RELIANCE
from apportion.runs.target_functions import compares_with_contrast
from apportion.scoring.readout import log_probs_of

__all__ = ["CueFunction"]


class CueFunction:
    """A target function at chosen tokens only; a contrastive one compares each token with its contextless alternative.

    Both are predicted by the same forward pass: after the same prompt and the same target tokens before. So one run
    explains all tokens, each in a column of its own, and the whole target is their sum. Where the model says the same
    token without the context, its score is compared with its own score there, as in Inseq, which is a constant.

    Args:
        name: name of the function.
        function: the function, which gives a value for each token.

    Attributes:
        name: its name.
        unit: its unit.
    """

    needs = Needs.LOGITS
    additive = True
    unsavable = CONTEXT_RELIANCE

    def __init__(self, name: str, function: TargetFunction) -> None:
        self.name = name
        self.unit = unit_of(function, name)
        self._function = function
        self._chosen: Bool[Tensor, " T"] | None = None
        self._without: Float[Tensor, "1 T V"] | None = None
        self._contrast: Target | None = None

    @property
    def explained(self) -> Bool[Tensor, " T"] | None:
        """The chosen tokens; ``None`` before they are chosen."""
        return self._chosen

    @property
    def contrasts(self) -> bool:
        """True if tokens are compared with alternatives."""
        return compares_with_contrast(self._function)

    @property
    def reference(self) -> str | None:
        """The prompt that all prompts are compared with, if the function has one."""
        found: str | None = getattr(self._function, "reference", None)
        return found

    @property
    def label(self) -> str:
        """Quantity that the values measure."""
        against = " against what the model says without the context" if self.contrasts else ""
        return f"{self.name} of the context-sensitive tokens{against}"

    @property
    def rise(self) -> str:
        """Meaning of a higher value."""
        return str(getattr(self._function, "rise", ""))

    def at(self, chosen: Bool[Tensor, " T"], alternatives: Target, without: Float[Tensor, "1 T V"]) -> CueFunction:
        """The same function at these tokens.

        Args:
            chosen: the tokens; values of others are 0.
            alternatives: the token that the model says without the context, at each position.
            without: logits without the context, at each position.
        """
        made = CueFunction(self.name, self._function)
        made._chosen, made._without, made._contrast = chosen, without, alternatives
        return made

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """The sum over the chosen tokens, then each token's own value; 0 for tokens that are not chosen."""
        assert scores.logits is not None and self._chosen is not None and self._contrast is not None
        reference = None
        if scores.reference is not None and scores.reference.logits is not None:
            reference = self._read(scores.reference.logits, target.ids)
        given = replace(
            self._read(scores.logits, target.ids),
            contrast=self._alternative(scores.logits, target) if self.contrasts else None,
            reference=reference,
        )
        values = self._function(given, replace(target, contrast=self._contrast if self.contrasts else None))
        tokens = values[:, 1:] * self._chosen.to(values)
        return torch.cat([tokens.sum(1, keepdim=True), tokens], dim=1)

    def _alternative(self, logits: Float[Tensor, "S T V"], target: Target) -> Scores:
        """Scores of the alternatives; where they are the target's own tokens, those without the context."""
        assert self._contrast is not None and self._without is not None
        ids = self._contrast.ids
        same = torch.tensor([one == other for one, other in zip(ids, target.ids, strict=True)], device=logits.device)
        found = self._read(logits, ids)
        if not bool(same.any()):
            return found
        there = self._read(self._without.to(logits), ids)
        if found.log_probs is not None and there.log_probs is not None:
            return Scores(log_probs=torch.where(same, there.log_probs, found.log_probs))
        return Scores(logits=torch.where(same[:, None], self._without.to(logits), logits))

    def _read(self, logits: Float[Tensor, "S T V"], ids: tuple[int, ...]) -> Scores:
        """The scores that the function needs."""
        if self._function.needs is Needs.LOGITS:
            return Scores(logits=logits)
        return Scores(log_probs=log_probs_of(logits, ids))

"""Predictions of the model at each target token after single prompts; each prompt is read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.backend import Session
from apportion.protocols.request import Request
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Needs, Scores, Target, TargetFunction
from apportion.runs.run import Ask, Reading, Scoring
from apportion.scoring.readout import Readout, log_probs_of
from apportion.scoring.scorer import Scorer, Tally

__all__ = ["Readings"]

Place = tuple[ModelInput, tuple[int, ...]]
"""A prompt, and the target after it."""


class Readings:
    """Reads single prompts, each followed by the target or the contrast of a request.

    An evaluation is a distinct prompt. A contrast that is read after the same prompt adds only its tokens.

    Args:
        session: the session.
        request: the run's request.
        scorer: makes the scorer of a request, which counts in the given tally.
        put: takes questions to the session.

    Attributes:
        tally: cost of everything that was read.
    """

    def __init__(
        self, session: Session, request: Request, scorer: Callable[[Request, Tally], Scorer], put: Ask
    ) -> None:
        self.tally = Tally()
        self._session = session
        self._request = request
        self._scorer = scorer
        self._put = put
        self._logits: dict[Place, Float[Tensor, "1 T V"]] = {}
        self._log_probs: dict[Place, Float[Tensor, "1 T"]] = {}
        self._read: set[ModelInput] = set()

    def logits(self, prompt: ModelInput, target: Target) -> Float[Tensor, "1 T V"]:
        """Logits at the positions that predict the target's tokens, from one forward pass over prompt and target."""
        place = (prompt, target.ids)
        if place not in self._logits:
            tally = Tally()
            found: Tensor = self._put(Reading(self._scorer(self._alone(target), tally), prompt))
            self._logits[place] = found
            self._count(tally, [prompt])
        return self._logits[place]

    def read_log_probs(self, prompts: Sequence[ModelInput], target: Target) -> None:
        """Read the log-probabilities of a target after prompts, in batches, but for those that logits have given."""
        missing = [p for p in dict.fromkeys(prompts) if not {(p, target.ids)} & (self._logits | self._log_probs).keys()]
        if not missing:
            return
        tally = Tally()
        found: Tensor = self._put(Scoring(self._scorer(self._alone(target), tally), missing))
        for prompt, row in zip(missing, found, strict=True):
            self._log_probs[prompt, target.ids] = row[None, 1:]
        self._count(tally, missing)

    def values(
        self, function: TargetFunction, prompt: ModelInput, target: Target, reference: ModelInput | None
    ) -> Float[Tensor, " K"]:
        """The value of a target function for a prompt, from scores that have been read.

        Args:
            function: the target function.
            prompt: the prompt.
            target: the target; with its contrast, if the function compares with one.
            reference: the prompt to compare with, if the function compares with one.
        """
        readout = Readout(self._session, target, function, reference)
        ours, *theirs = (self._scores(function, prompt, ids) for ids in readout.targets)
        compared = None if reference is None else self._scores(function, reference, target.ids)
        return readout.applied(ours, *theirs, reference=compared)[0]

    def read_apart(self, prompt: ModelInput, target: Target) -> bool:
        """True if these log-probabilities were read as the run itself would read them."""
        return (prompt, target.ids) in self._log_probs

    def _scores(self, function: TargetFunction, prompt: ModelInput, ids: tuple[int, ...]) -> Scores:
        """Scores that a function needs; log-probabilities come from logits where these were read."""
        place = (prompt, ids)
        if function.needs is Needs.LOGITS:
            return Scores(logits=self._logits[place])
        if place in self._log_probs:
            return Scores(log_probs=self._log_probs[place])
        return Scores(log_probs=log_probs_of(self._logits[place], ids))

    def _alone(self, target: Target) -> Request:
        """The request for log-probabilities of one target, without contrast or reference."""
        return replace(self._request, target=replace(target, contrast=None), target_fn=_EachToken(), reference=None)

    def _count(self, tally: Tally, prompts: Sequence[ModelInput]) -> None:
        self.tally.forwarded_tokens += tally.forwarded_tokens
        self.tally.encoded_media += tally.encoded_media
        self.tally.notes += tally.notes
        if not self._read.issuperset(prompts):
            self.tally.evaluations += tally.evaluations
            self.tally.cached += tally.cached
        self._read.update(prompts)


class _EachToken:
    """The log-probability of each target token, and their sum."""

    needs = Needs.LOG_PROBS

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        assert scores.log_probs is not None
        found = scores.log_probs.double()
        return torch.cat([found.sum(1, keepdim=True), found], dim=1)

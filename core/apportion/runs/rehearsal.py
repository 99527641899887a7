"""A run on made-up values, which counts and plans what the model would read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.row import ModelInput
from apportion.runs.calibration import Probe, Speed, growing_probes, measured
from apportion.runs.rehearsed_inside import RehearsedInside
from apportion.runs.rehearsed_texts import RehearsedTexts
from apportion.runs.run import Question, Scoring, Writing
from apportion.runs.white_box import Embedded, Tracing
from apportion.scoring.media import KeptMedia
from apportion.scoring.noise import outputs_of
from apportion.scoring.plan import Plan
from apportion.scoring.prefix_tree import common_prefix
from apportion.scoring.scorer import Scorer
from apportion.scoring.work import work_of

__all__ = ["Rehearsal"]


class Rehearsal:
    """Answers questions with made-up values; plans rows and counts white-box forward passes without running them.

    Attributes:
        plans: plans of the prompts to score.
        evaluations: number of distinct inputs so far.
        texts: texts that the model would write.
    """

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.evaluations = 0
        self._scorer: Scorer | None = None
        self._inside = RehearsedInside()
        self.texts = RehearsedTexts()
        self._whole: tuple[int, ...] = ()
        self._draw = torch.Generator().manual_seed(0)

    def __call__(self, question: Question) -> Any:
        """Answer a question; only traces and edited forward passes are real."""
        if isinstance(question, Scoring):
            return self._scored(question.scorer, question.inputs)
        if isinstance(question, Writing):
            self.evaluations += len(question.inputs)
            self.texts.add(question.scorer, question.inputs)
            return self._made_up([item.ids for item in question.inputs], outputs_of(question.scorer.samples))
        if isinstance(question, Embedded):
            self.evaluations += len(question.one.points)
            return self._inside.embedded(question)
        if isinstance(question, Tracing):
            self.evaluations += 1
            return self._inside.traced(question)
        return question.answer()

    @property
    def tokens(self) -> int:
        """Number of tokens that the model would read, padding included."""
        return sum(plan.forwarded_tokens for plan in self.plans) + self._inside.tokens + self.texts.tokens

    @property
    def whole_tokens(self) -> int:
        """Number of tokens that it would read if every prompt were read whole."""
        return sum(plan.whole_tokens for plan in self.plans) + self._inside.tokens + self.texts.tokens

    @property
    def encoded_media(self) -> int:
        """Number of media that the model would encode."""
        kept = KeptMedia(self.plans[0].layout.kept_media if self.plans else None)
        return sum(kept.read([plan.rows[i] for i in batch.rows]) for plan in self.plans for batch in plan.batches)

    @property
    def batches(self) -> int:
        """Number of forward passes over batches."""
        return sum(len(plan.batches) for plan in self.plans) + self._inside.forwards + self.texts.count

    @property
    def requests(self) -> int:
        """Number of batches that are paid for."""
        return sum(len(plan.batches) for plan in self.plans if plan.layout.metered) + self.texts.requests

    @property
    def spent(self) -> float:
        """Seconds that the model has computed so far; ``timed`` counts them again as a part of the run."""
        return self._inside.spent

    def batch_bytes(self, of_plan: Callable[[Plan], int]) -> int | None:
        """Upper estimate of the memory of the largest batch; ``None`` if it is unknown.

        Args:
            of_plan: returns that of the largest batch of a plan.
        """
        inside = self._inside.batch_bytes
        return None if inside is None or self.texts.count else max([inside, *map(of_plan, self.plans)])

    def timed(self) -> tuple[float, str]:
        """Estimate the time that the model takes to read everything, and describe how it was measured."""
        read, described = 0.0, ""
        if self._scorer is not None and self.requests:  # of log-probabilities
            pace = float(getattr(self._scorer.session, "pace", 0.0))
            return pace * self.tokens, "from earlier requests, whose prompts are short; none was sent"
        if self._scorer is not None:
            read, described = _Trials(self._scorer, self.plans).timed()
        parts = [(read, described), self._inside.timed(), self.texts.timed()]
        return sum(seconds for seconds, _ in parts), "; ".join(text for _, text in parts if text)

    def _scored(self, scorer: Scorer, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        scorer.check(inputs)
        self._scorer = self._scorer or scorer
        # The session will continue from where the previous plan ends.
        self.plans += scorer.plans(inputs, self.plans[-1].kept if self.plans else None)
        self.evaluations += len(inputs)
        return self._made_up([item.ids for item in inputs], scorer.readout.n_outputs)

    def _made_up(self, prompts: Sequence[tuple[int, ...]], outputs: int) -> Float[Tensor, "N K"]:
        """Values for which an adaptive method costs what it may well cost.

        They tend to be lower the earlier a prompt differs from the longest one: the beginning of a prompt often matters
        most, and prompts that differ there share least with others. All are below 0 like log-probabilities, because
        some methods insist on that.
        """
        self._whole = max(self._whole, *prompts, key=len)
        early = [1 - common_prefix(ids, self._whole) / len(self._whole) for ids in prompts]
        draws = torch.rand(len(prompts), outputs, generator=self._draw, dtype=torch.float64)
        return -0.5 - (0.1 + torch.tensor(early, dtype=torch.float64)[:, None]) * draws


class _Trials:
    """Times a few inputs of some plans.

    Args:
        scorer: scores the trials as it would score the run.
        plans: plans of the run.
    """

    def __init__(self, scorer: Scorer, plans: Sequence[Plan]) -> None:
        self._scorer = scorer
        self._plans = plans
        self._total = work_of(plans)
        self._longest = max((row for plan in plans for row in plan.rows), key=lambda row: len(row.read))

    def timed(self) -> tuple[float, str]:
        """Estimate the time of all plans, and describe how it was measured."""
        speed = self._sampled(Speed.fitted(self._probes()))
        return speed.seconds(self._total) / self._at_once(), speed.described(len(self._longest.read))

    def _probes(self) -> list[Probe]:
        """Time the longest prompt, cut to growing lengths; one with media is not cut, because they have places."""
        row = self._longest
        most = len(row.prompt)

        def probe(tokens: int) -> Probe:
            found = self._time([ModelInput(row.prompt[:tokens], row.media)])
            return replace(found, tokens=tokens + len(row.read) - most)

        return [probe(most)] if row.media else growing_probes(most, probe, self._total)

    def _sampled(self, speed: Speed) -> Speed:
        """Compare with some rows of the most expensive plan, whose batches may have another speed."""
        plan = max(self._plans, key=lambda plan: plan.forwarded_tokens)
        batch = max(plan.batches, key=plan.read)
        members = [plan.rows[i] for i in batch.rows if i < len(plan.rows)]
        inputs = list(dict.fromkeys(ModelInput(row.prompt, row.media) for row in members))
        rows = len(inputs)
        while rows and speed.seconds(work_of(self._scorer.plans(inputs[:rows], None))) > speed.allowed(self._total) / 2:
            rows //= 2
        return speed.scaled(measured(lambda: self._time(inputs[:rows]))) if rows else speed

    def _time(self, inputs: Sequence[ModelInput]) -> Probe:
        started = time.perf_counter()
        plan = self._scorer.trial(inputs)
        seconds = time.perf_counter() - started
        return Probe(max(len(row.read) for row in plan.rows), work_of([plan]), seconds)

    def _at_once(self) -> int:
        """Number of batches that the session reads at the same time."""
        batches = [batch for plan in self._plans for batch in plan.batches]
        independent = all(batch.independent for batch in batches)
        return min(self._scorer.session.layout.lanes, len(batches)) if independent else 1

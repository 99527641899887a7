"""A run on made-up values, which counts and plans what the model would read."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.row import ModelInput
from apportion.runs.calibration import Probe, Speed, growing_probes, measured
from apportion.runs.run import EmbeddedScoring, Question, Scoring, Tracing
from apportion.scoring.plan import Plan
from apportion.scoring.prefix_tree import common_prefix
from apportion.scoring.scorer import Scorer
from apportion.scoring.work import Work, attended, work_of

__all__ = ["Rehearsal"]


class Rehearsal:
    """Answers questions with made-up values; plans rows and counts white-box forward passes without running them.

    Attributes:
        plans: plans of the prompts to score.
        evaluations: number of distinct inputs so far.
    """

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.evaluations = 0
        self._scorer: Scorer | None = None
        self._inner = _Inner()
        self._traces: dict[object, tuple[object, float]] = {}
        self._again = 0.0
        self._whole: tuple[int, ...] = ()
        self._draw = torch.Generator().manual_seed(0)

    def __call__(self, question: Question) -> Any:
        """Answer a question; only traces are real."""
        if isinstance(question, Scoring):
            return self._scored(question.scorer, question.inputs)
        if isinstance(question, EmbeddedScoring):
            self.evaluations += len(question.embedded)
            return self._inner.values(question)
        if isinstance(question, Tracing):
            return self._traced(question)
        return question.answer()

    @property
    def tokens(self) -> int:
        """Number of tokens that the model would read, padding included."""
        return sum(plan.forwarded_tokens for plan in self.plans) + self._inner.tokens

    @property
    def whole_tokens(self) -> int:
        """Number of tokens that it would read if every prompt were read whole."""
        return sum(plan.whole_tokens for plan in self.plans) + self._inner.tokens

    @property
    def batches(self) -> int:
        """Number of forward passes over batches."""
        return sum(len(plan.batches) for plan in self.plans) + self._inner.forwards

    def timed(self) -> tuple[float, str]:
        """Estimate the time that the model takes to read everything, and describe how it was measured."""
        read, described = 0.0, ""
        if self._scorer is not None:
            read, described = _Trials(self._scorer, self.plans).timed()
        inner, how = self._inner.timed()
        return read + inner + self._again, "; ".join(text for text in (described, how) if text)

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

    def _traced(self, question: Tracing) -> object:
        """Return real internals, because only the model knows their shapes; one forward pass per kind of question."""
        asked = (question.hidden, question.attentions, question.modules)
        if asked not in self._traces:
            session, ids = question.session, question.ids
            started = time.perf_counter()
            trace = session.trace(ids, hidden=asked[0], attentions=asked[1], modules=asked[2])
            self._traces[asked] = (trace, time.perf_counter() - started)
        else:  # the run traces each of them; the first was traced just now
            self._again += self._traces[asked][1]
        self.evaluations += 1
        self._inner.traced(len(question.ids))
        return self._traces[asked][0]


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


@dataclass(slots=True)
class _Inner:
    """Forward passes over embeddings, and traced ones."""

    tokens: int = 0
    forwards: int = 0
    work: Work = field(default_factory=Work)
    question: EmbeddedScoring | None = None

    def values(self, question: EmbeddedScoring) -> Float[Tensor, "B K"]:
        """Compute smooth values with a gradient, without the model."""
        self.question = self.question or question
        readout = question.scorer.readout
        self.tokens += question.tokens
        self.forwards += len(readout.targets)
        self.work += _work(question)
        with torch.enable_grad():
            smooth = question.embedded.double().square().mean((1, 2)).cpu()
            return -0.5 - smooth[:, None] * torch.arange(1, readout.n_outputs + 1, dtype=torch.float64)

    def traced(self, tokens: int) -> None:
        """Count a traced forward pass."""
        self.tokens += tokens
        self.forwards += 1

    def timed(self) -> tuple[float, str]:
        """Estimate the time of all passes over embeddings, forward and backward, and describe how it was measured."""
        question = self.question
        if question is None:
            return 0.0, ""
        longest = question.embedded.shape[1]
        probes = growing_probes(longest, lambda tokens: _gradient(question, tokens), self.work)
        speed = Speed.fitted(probes)
        rows = len(question.embedded)
        while rows > 1 and speed.seconds(_work(_part(question, rows))) > speed.allowed(self.work) / 2:
            rows //= 2
        if rows > 1:
            speed = speed.scaled(_gradient(question, longest, rows))
        return speed.seconds(self.work), f"{speed.described(longest)}, with gradients"


def _work(question: EmbeddedScoring) -> Work:
    rows, prompt, _ = question.embedded.shape
    lengths = [prompt + len(target) - 1 for target in question.scorer.readout.targets]
    pairs = rows * sum(attended(length, length) for length in lengths)
    return Work(len(lengths), question.tokens, pairs)


def _part(question: EmbeddedScoring, rows: int, tokens: int | None = None) -> EmbeddedScoring:
    return replace(question, embedded=question.embedded[:rows, :tokens])


def _gradient(question: EmbeddedScoring, tokens: int, rows: int = 1) -> Probe:
    """Time a forward and a backward pass over the first embeddings of some prompts."""
    part = _part(question, rows, tokens)
    part = replace(part, embedded=part.embedded.detach().requires_grad_())
    started = time.perf_counter()
    torch.autograd.grad(part.values()[:, 0].sum(), part.embedded)
    return Probe(tokens, _work(part), time.perf_counter() - started)

"""What a run would cost: the method is run on made-up values, and a little of the plan is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.game.method_runner import run_method
from apportion.protocols.backend import Session
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Needs
from apportion.runs.run import Ask, EmbeddedScoring, Question, Scoring, Tracing
from apportion.scoring.plan import Plan
from apportion.scoring.readout import LOGITS_BYTES

if TYPE_CHECKING:
    from apportion.protocols.request import Request
    from apportion.scoring.scorer import Scorer

__all__ = ["Cost", "estimate_cost"]

CALIBRATION_TOKENS = 2048
"""Forwarded to find the rate: a second or two of a small model on a CPU."""

NEVER = 1e-12
"""A standard error that no sampling reaches, so that a run goes on to the end of its budget."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run is expected to cost.

    Attributes:
        method: the method that would run.
        method_reason: why ``method="auto"`` chose it.
        features: F.
        target_tokens: T.
        evaluations: distinct model inputs to score; a cache may know some of them.
        forwarded_tokens: tokens that the model would read for them, padding included.
        whole_tokens: the same if every prompt was read whole.
        batches: forwards.
        seconds: of the whole run, from the rate of a short calibration.
        tokens_per_second: that rate.
        batch_bytes: upper estimate of the memory of the largest batch.
        model_bytes: the weights; ``None`` if the session cannot tell.
        at_most: what the run asks depends on what it finds. ``evaluations`` are the most that it may ask then, and
            tokens, batches and time those of a run that asks them all, in steps as it would take them.
    """

    method: str
    method_reason: str
    features: int
    target_tokens: int
    evaluations: int
    forwarded_tokens: int
    whole_tokens: int
    batches: int
    seconds: float
    tokens_per_second: float
    batch_bytes: int
    model_bytes: int | None
    at_most: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values."""
        return asdict(self)

    def show(self) -> None:
        """Print it in the terminal."""
        from rich.console import Console

        Console().print(self._table())

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        for name, text in self.lines():
            table.add_row(f"[bold]{name}[/bold]", text)
        return table

    def _saved(self) -> str:
        saved = self.whole_tokens > self.forwarded_tokens
        return f" ({self.whole_tokens:,} if every prompt was read whole)" if saved else ""

    def lines(self) -> list[tuple[str, str]]:
        """Names and readable texts."""
        most, about = ("at most ", "up to about ") if self.at_most else ("", "")
        batches = f"{about}{self.batches:,} batch{'' if self.batches == 1 else 'es'}"
        target = f"{self.target_tokens:,} target token{'' if self.target_tokens == 1 else 's'}"
        weights = "" if self.model_bytes is None else f"{_size(self.model_bytes)} weights + "
        memory = f"{weights}{_size(self.batch_bytes)} for the largest batch, at most"
        return [
            ("method", f"{self.method} ({self.method_reason})" if self.method_reason else self.method),
            ("prompt", f"{self.features:,} feature{'' if self.features == 1 else 's'}, {target}"),
            ("evaluations", f"{most}{self.evaluations:,} distinct prompts in {batches}"),
            ("tokens", f"{about}{self.forwarded_tokens:,} to forward" + self._saved()),
            ("time", f"{about or 'about '}{_duration(self.seconds)} ({self.tokens_per_second:,.0f} tokens/s)"),
            ("memory", memory),
        ]


def estimate_cost(request: Request, scorer: Scorer, game: Callable[[Ask], Game]) -> Cost:
    """Run the method on made-up values and time a part of what it asks for.

    What a method asks depends on its seed and not on the values, unless it is ``adaptive`` or has to go on ``until``
    its errors are small; then the whole budget is what it may cost, in steps that go on to its end.

    Args:
        request: what would be run.
        scorer: plans and scores the calibration, as it would for the run.
        game: makes a game whose questions go where it is told.

    Raises:
        BudgetError: the budget is too small for the method.
    """
    started = time.perf_counter()
    rehearsal = _Rehearsal()
    until = None if request.until is None else NEVER
    run_method(replace(request, until=until), game(rehearsal))
    host = time.perf_counter() - started
    rate = rehearsal.rate(scorer)
    tokens = sum(plan.forwarded_tokens for plan in rehearsal.plans) + rehearsal.inner_tokens
    return Cost(
        method=request.method_name,
        method_reason=request.method_reason,
        features=len(request.adapter.features),
        target_tokens=len(request.target.ids),
        evaluations=rehearsal.evaluations,
        forwarded_tokens=tokens,
        whole_tokens=sum(plan.whole_tokens for plan in rehearsal.plans) + rehearsal.inner_tokens,
        batches=sum(len(plan.batches) for plan in rehearsal.plans) + rehearsal.inner_forwards,
        seconds=host + (tokens / rate if rate else 0.0),
        tokens_per_second=rate,
        batch_bytes=max((_batch_bytes(plan, scorer.session, request) for plan in rehearsal.plans), default=0),
        model_bytes=scorer.session.info.weights_bytes,
        at_most=request.until is not None or bool(getattr(request.method, "adaptive", False)),
    )


class _Rehearsal:
    """Answers questions with made-up values: rows are planned and forwards through the inside counted, not run."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.evaluations = self.inner_tokens = self.inner_forwards = 0
        self._embedded: EmbeddedScoring | None = None
        self._traces: dict[object, object] = {}
        self._draw = torch.Generator().manual_seed(0)

    def __call__(self, question: Question) -> Any:
        if isinstance(question, Scoring):
            return self._scored(question.scorer, question.inputs)
        if isinstance(question, EmbeddedScoring):
            return self._embedded_values(question)
        if isinstance(question, Tracing):
            return self._traced(question)
        return question.answer()

    def rate(self, scorer: Scorer) -> float:
        """Tokens a second of a small part of what was asked; 0 if that was nothing."""
        if self.plans:
            return _rate(self.plans[0], scorer)
        return _inner_rate(self._embedded) if self._embedded is not None else 0.0

    def _scored(self, scorer: Scorer, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        scorer.check(inputs)
        # The session will go on from where the plan before ends.
        self.plans.append(scorer.plan(inputs, self.plans[-1].kept if self.plans else None))
        self.evaluations += len(inputs)
        # Below 0, as log-probabilities are, which is what some methods insist on.
        return -0.5 - torch.rand(len(inputs), scorer.readout.n_outputs, generator=self._draw, dtype=torch.float64)

    def _embedded_values(self, question: EmbeddedScoring) -> Float[Tensor, "B K"]:
        """Smooth values with a gradient, without the model."""
        self._embedded = self._embedded or question
        rows, outputs = len(question.embedded), question.readout.n_outputs
        self.evaluations += rows
        self.inner_tokens += question.tokens
        self.inner_forwards += len(question.readout.targets)
        with torch.enable_grad():
            smooth = question.embedded.double().square().mean((1, 2)).cpu()
            return -0.5 - smooth[:, None] * torch.arange(1, outputs + 1, dtype=torch.float64)

    def _traced(self, question: Tracing) -> object:
        """The real internals, whose shapes nobody else knows; one forward for each kind of question."""
        asked = (question.hidden, question.attentions, question.modules)
        if asked not in self._traces:
            session, ids = question.session, question.ids
            self._traces[asked] = session.trace(ids, hidden=asked[0], attentions=asked[1], modules=asked[2])
        self.evaluations += 1
        self.inner_tokens += len(question.ids)
        self.inner_forwards += 1
        return self._traces[asked]


def _rate(plan: Plan, scorer: Scorer) -> float:
    """Tokens a second in the widest batch of a plan, or as much of it as a calibration may take."""
    scorer.readout.prepare(scorer.score)
    batch = max(plan.batches, key=plan.read)
    rows = max(1, CALIBRATION_TOKENS * len(batch.rows) // max(1, plan.read(batch)))
    part = batch.part(0, rows)
    # The first time encodes the prefix and warms up.
    scorer.score(plan.scoring_batch(batch.part(0, 1)))
    started = time.perf_counter()
    scorer.score(plan.scoring_batch(part))
    return plan.read(part) / (time.perf_counter() - started)


def _inner_rate(question: EmbeddedScoring) -> float:
    """Tokens a second of a forward and a backward through the inside, for one row."""
    row = replace(question, embedded=question.embedded[:1].detach().requires_grad_())
    question.readout.prepare(question.scorer.score)
    seconds = 0.0
    for _ in range(2):  # the first time warms up
        started = time.perf_counter()
        values = question.readout.of_embeddings(question.session, row.embedded)
        torch.autograd.grad(values[:, 0].sum(), row.embedded)
        seconds = time.perf_counter() - started
    return row.tokens / seconds


def _batch_bytes(plan: Plan, session: Session, request: Request) -> int:
    largest = max(plan.bytes(batch, session.row_bytes) for batch in plan.batches)
    return largest + (LOGITS_BYTES if request.target_fn.needs is Needs.LOGITS else 0)


def _size(count: int) -> str:
    return f"{count / 2**30:.2g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:.2g} h"

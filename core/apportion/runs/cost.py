"""Estimated cost of a run. The method is run on made-up values, and a small part of the plan is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import counted
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
"""Number of tokens forwarded to measure the rate; a small model on a CPU takes a second or two."""

NEVER = 1e-12
"""A standard error too small to be reached, so that a run spends its whole budget."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Expected cost of a run.

    Attributes:
        method: name of the method that would run.
        method_reason: the reason why ``method="auto"`` chose it; empty if the user did.
        features: F.
        target_tokens: T.
        evaluations: distinct model inputs to score; some may be cached.
        forwarded_tokens: number of tokens that the model would read, padding included.
        whole_tokens: number of tokens that it would read if every prompt were read whole.
        batches: number of forward passes.
        seconds: duration of the whole run in seconds, estimated from a short calibration.
        tokens_per_second: rate measured by the calibration.
        batch_bytes: upper estimate of the memory of the largest batch, in bytes.
        model_bytes: memory of the weights in bytes; ``None`` if unknown.
        at_most: true if the evaluations depend on values found during the run. Then ``evaluations`` is the maximum, and
            tokens, batches and time are those of a run that makes all of them, in the steps that it would take.
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
        """Convert to plain Python values."""
        return asdict(self)

    def __repr__(self) -> str:
        facts = [text for name, text in self.lines() if name not in ("method", "memory")]
        return f"Cost of {self.method}: {'; '.join(facts)}"

    def show(self) -> None:
        """Print the cost in the terminal."""
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
        return f" ({self.whole_tokens:,} if every prompt were read whole)" if saved else ""

    def lines(self) -> list[tuple[str, str]]:
        """Labels and formatted values."""
        most, about = ("at most ", "up to about ") if self.at_most else ("", "")
        batches = f"{about}{counted(self.batches, 'batch', 'batches')}"
        target = counted(self.target_tokens, "target token")
        weights = "" if self.model_bytes is None else f"{_size(self.model_bytes)} weights + "
        memory = f"{weights}{_size(self.batch_bytes)} for the largest batch, at most"
        return [
            ("method", f"{self.method} ({self.method_reason})" if self.method_reason else self.method),
            ("prompt", f"{counted(self.features, 'feature')}, {target}"),
            ("evaluations", f"{most}{counted(self.evaluations, 'distinct prompt')} in {batches}"),
            ("tokens", f"{about}{self.forwarded_tokens:,} to forward" + self._saved()),
            ("time", f"{about or 'about '}{_duration(self.seconds)} ({self.tokens_per_second:,.0f} tokens/s)"),
            ("memory", memory),
        ]


def estimate_cost(request: Request, scorer: Scorer, game: Callable[[Ask], Game]) -> Cost:
    """Run the method on made-up values, and time a small part of its evaluations.

    The coalitions that a method evaluates depend on its seed and not on the values, unless it is ``adaptive`` or runs
    with ``until``. In these cases the run may cost the whole budget, and its steps are rehearsed to the end.

    Args:
        request: request of the run.
        scorer: plans and scores the calibration, as it would for the run.
        game: makes a game that sends its questions to the given function.

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
    """Answers questions with made-up values; plans rows and counts white-box forward passes without running them."""

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
        """Tokens per second, measured on a small part of the evaluations; 0 if there were none."""
        if self.plans:
            return _rate(self.plans[0], scorer)
        return _inner_rate(self._embedded) if self._embedded is not None else 0.0

    def _scored(self, scorer: Scorer, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        scorer.check(inputs)
        # The session will continue from where the previous plan ends.
        self.plans.append(scorer.plan(inputs, self.plans[-1].kept if self.plans else None))
        self.evaluations += len(inputs)
        # Below 0 like log-probabilities, because some methods insist on that.
        return -0.5 - torch.rand(len(inputs), scorer.readout.n_outputs, generator=self._draw, dtype=torch.float64)

    def _embedded_values(self, question: EmbeddedScoring) -> Float[Tensor, "B K"]:
        """Compute smooth values with a gradient, without the model."""
        self._embedded = self._embedded or question
        rows, readout = len(question.embedded), question.scorer.readout
        self.evaluations += rows
        self.inner_tokens += question.tokens
        self.inner_forwards += len(readout.targets)
        with torch.enable_grad():
            smooth = question.embedded.double().square().mean((1, 2)).cpu()
            return -0.5 - smooth[:, None] * torch.arange(1, readout.n_outputs + 1, dtype=torch.float64)

    def _traced(self, question: Tracing) -> object:
        """Return real internals, because only the model knows their shapes; one forward pass per kind of question."""
        asked = (question.hidden, question.attentions, question.modules)
        if asked not in self._traces:
            session, ids = question.session, question.ids
            self._traces[asked] = session.trace(ids, hidden=asked[0], attentions=asked[1], modules=asked[2])
        self.evaluations += 1
        self.inner_tokens += len(question.ids)
        self.inner_forwards += 1
        return self._traces[asked]


def _rate(plan: Plan, scorer: Scorer) -> float:
    """Tokens per second in the largest batch of a plan, or in as much of it as a calibration may take."""
    scorer.readout.prepare(scorer.score)
    batch = max(plan.batches, key=plan.read)
    rows = max(1, CALIBRATION_TOKENS * len(batch.rows) // max(1, plan.read(batch)))
    part = batch.part(0, rows)
    # The first call encodes the prefix and warms up.
    scorer.score(plan.scoring_batch(batch.part(0, 1)))
    started = time.perf_counter()
    scorer.score(plan.scoring_batch(part))
    return plan.read(part) / (time.perf_counter() - started)


def _inner_rate(question: EmbeddedScoring) -> float:
    """Tokens per second of a forward and a backward pass over embeddings, for one row."""
    row = replace(question, embedded=question.embedded[:1].detach().requires_grad_())
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        torch.autograd.grad(row.values()[:, 0].sum(), row.embedded)
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

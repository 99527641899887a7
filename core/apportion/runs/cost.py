"""What a run would cost: the method is run on made-up values, and a little of the plan is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game, Score
from apportion.game.stopping import run_request
from apportion.game.token_view import ScoreTokens
from apportion.protocols.backend import Session
from apportion.protocols.inputs import ModelInput
from apportion.protocols.targets import Needs, TargetFunction
from apportion.scoring.plan import Plan
from apportion.scoring.readout import LOGITS_BYTES, Readout

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
        model_bytes: the weights.
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
    model_bytes: int
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
        memory = f"{_size(self.model_bytes)} weights + {_size(self.batch_bytes)} for the largest batch, at most"
        return [
            ("method", f"{self.method} ({self.method_reason})" if self.method_reason else self.method),
            ("prompt", f"{self.features:,} feature{'' if self.features == 1 else 's'}, {target}"),
            ("evaluations", f"{most}{self.evaluations:,} distinct prompts in {batches}"),
            ("tokens", f"{about}{self.forwarded_tokens:,} to forward" + self._saved()),
            ("time", f"{about or 'about '}{_duration(self.seconds)} ({self.tokens_per_second:,.0f} tokens/s)"),
            ("memory", memory),
        ]


def estimate_cost(
    request: Request, scorer: Scorer, readout: Readout, game: Callable[[Score, ScoreTokens], Game]
) -> Cost:
    """Run the method on made-up values and time a part of what it asks for.

    What a method asks depends on its seed and not on the values, unless it is ``adaptive`` or has to go on ``until``
    its errors are small; then the whole budget is what it may cost, in steps that go on to its end.

    Args:
        request: what would be run.
        scorer: plans, as it would for the run.
        readout: scores the calibration.
        game: makes a game that scores coalitions and other prompts with the functions it is given.

    Raises:
        BudgetError: the budget is too small for the method.
    """
    started = time.perf_counter()
    rehearsal = _Rehearsal(scorer, readout.n_outputs)
    until = None if request.until is None else NEVER
    run_request(replace(request, until=until), game(rehearsal, rehearsal.tokens))
    host = time.perf_counter() - started
    rate = _rate(rehearsal.plans[0], readout) if rehearsal.plans else 0.0
    tokens = sum(plan.forwarded_tokens for plan in rehearsal.plans)
    return Cost(
        method=request.method_name,
        method_reason=request.method_reason,
        features=len(request.adapter.features),
        target_tokens=len(request.target.ids),
        evaluations=rehearsal.asked,
        forwarded_tokens=tokens,
        whole_tokens=sum(plan.whole_tokens for plan in rehearsal.plans),
        batches=sum(len(plan.batches) for plan in rehearsal.plans),
        seconds=host + (tokens / rate if rate else 0.0),
        tokens_per_second=rate,
        batch_bytes=max((_batch_bytes(plan, scorer.session, request) for plan in rehearsal.plans), default=0),
        model_bytes=sum(p.numel() * p.element_size() for p in request.model.model.parameters()),
        at_most=request.until is not None or bool(getattr(request.method, "adaptive", False)),
    )


class _Rehearsal:
    """Plans what it is asked to score, and makes values up."""

    def __init__(self, scorer: Scorer, n_outputs: int) -> None:
        self.plans: list[Plan] = []
        self.asked = 0
        self._scorer = scorer
        self._n_outputs = n_outputs
        self._draw = torch.Generator().manual_seed(0)

    def __call__(self, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        return self._planned([item.ids for item in inputs])

    def tokens(self, prompts: Sequence[tuple[int, ...]], target_fn: TargetFunction) -> Float[Tensor, "N K"]:
        """The same of prompts that are no coalitions."""
        return self._planned(prompts)

    def _planned(self, sequences: Sequence[tuple[int, ...]]) -> Float[Tensor, "N K"]:
        self._scorer.check(sequences)
        # The session will go on from where the plan before ends.
        self.plans.append(self._scorer.plan(sequences, self.plans[-1].kept if self.plans else ()))
        self.asked += len(sequences)
        # Below 0, as log-probabilities are, which is what some methods insist on.
        return -0.5 - torch.rand(len(sequences), self._n_outputs, generator=self._draw, dtype=torch.float64)


def _rate(plan: Plan, readout: Readout) -> float:
    """Tokens a second in the widest batch of a plan, or as much of it as a calibration may take."""
    batch = max(plan.batches, key=plan.read)
    rows = max(1, CALIBRATION_TOKENS * len(batch.rows) // max(1, plan.read(batch)))
    part = batch.part(0, rows)
    # The first time encodes the prefix and warms up.
    readout.read(plan.tensors(batch.part(0, 1)))
    started = time.perf_counter()
    readout.read(plan.tensors(part))
    return plan.read(part) / (time.perf_counter() - started)


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

"""Estimated cost of a run. The method is run on made-up values, and a few short trials show the speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

from apportion.errors import counted
from apportion.game.game import Game
from apportion.game.method_runner import run_method
from apportion.phrases import duration, memory_line
from apportion.protocols.backend import Session
from apportion.protocols.targets import Needs
from apportion.runs.rehearsal import Rehearsal
from apportion.runs.run import Ask
from apportion.runs.step_scores import rows_to_read
from apportion.scoring.plan import Plan
from apportion.scoring.readout import LOGITS_BYTES

if TYPE_CHECKING:
    from apportion.protocols.request import Request

__all__ = ["Cost", "estimate_cost"]

UNREACHABLE = 1e-12
"""A standard error too small to be reached, so that a run spends its whole budget."""

EXPONENTS = 60
"""A budget is never 2 to a higher power."""


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
        seconds: estimated duration of the whole run in seconds.
        tokens_per_second: rate at which the model would read these tokens, estimated from short trials.
        batch_bytes: upper estimate of the memory of the largest batch, in bytes; ``None`` if unknown.
        model_bytes: memory of the weights in bytes; ``None`` if unknown.
        at_most: true if the evaluations depend on values found during the run. Then ``evaluations`` is the maximum, and
            tokens, batches and time are those of a run that makes all of them, in the steps that it would take.
        measured: the trials that the rate was measured in; empty if nothing has to be read.
        target_end: why a target that the model wrote ends where it does, as in ``Provenance``; ``None`` if the target
            was given.
        encoded_media: number of media, such as pictures, that the model would encode.
        requests: number of requests to a server; 0 for a model on this machine.
        price: price of the tokens to forward, in the currency of the session's price; ``None`` if it has none.
        texts: number of texts that the model would write. Each is then counted with the most tokens that it may have.
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
    batch_bytes: int | None
    model_bytes: int | None
    at_most: bool = False
    measured: str = ""
    target_end: str | None = None
    encoded_media: int = 0
    requests: int = 0
    price: float | None = None
    texts: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain Python values."""
        return asdict(self)

    def __repr__(self) -> str:
        named = dict(self.lines())
        facts = [named[name] for name in ("prompt", "evaluations", "tokens", "time")]
        return f"Cost of {self.method}: {'; '.join(facts)}" + (
            f"; time measured {self.measured}" if self.measured else ""
        )

    def _repr_html_(self) -> str:
        cells = (
            f'<tr><th scope="row" style="text-align: left">{escape(name)}</th>'
            f'<td style="text-align: left">{escape(text)}</td></tr>'
            for name, text in self.lines()
        )
        return f"<table>{''.join(cells)}</table>"

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
        sent = counted(self.requests, "request") if self.requests else counted(self.batches, "batch", "batches")
        texts = f"{counted(self.texts, 'text')} after " if self.texts else ""
        batches = f"{about}{sent}"
        target = counted(self.target_tokens, "target token")
        if self.target_end is not None:
            target += ", written by the model" + (" and cut off" if self.target_end == "limit" else "")
        rate = f" ({self.tokens_per_second:,.0f} tokens/s)" if self.tokens_per_second else ""
        return [
            ("method", f"{self.method} ({self.method_reason})" if self.method_reason else self.method),
            ("prompt", counted(self.features, "feature") + ("" if self.texts else f", {target}")),
            ("evaluations", f"{most}{texts}{counted(self.evaluations, 'distinct prompt')} in {batches}"),
            ("tokens", f"{about}{counted(self.forwarded_tokens, 'token')} to forward" + self._saved()),
            *([("price", f"{about or 'about '}{self.price:.4g}")] if self.price is not None else []),
            *([("media", f"{about}{counted(self.encoded_media, 'picture')} to encode")] if self.encoded_media else []),
            ("time", f"{about or 'about '}{duration(self.seconds)}{rate}"),
            *([("measured", self.measured)] if self.measured else []),
            *memory_line(self.model_bytes, self.batch_bytes, "the largest batch"),
        ]


def estimate_cost(
    request: Request, session: Session, game: Callable[[Ask], Game], before: float, extra_texts: int = 0
) -> Cost:
    """Run the method on made-up values, and time a small part of its evaluations.

    The coalitions that a method evaluates depend on its seed and not on the values, unless it is ``adaptive`` or runs
    with ``until``. In these cases the run may cost the whole budget, and its steps are rehearsed to the end. The
    few rows of step scores take the time of as many other tokens.

    Args:
        request: request of the run.
        session: the session.
        game: makes a game that sends its questions to the given function.
        before: seconds that preparing the request took.
        extra_texts: texts that are written before the method runs, and do not count as evaluations.

    Raises:
        BudgetError: the budget is too small for the method.
    """
    started = time.perf_counter()
    rehearsal = Rehearsal()
    until = None if request.until is None else UNREACHABLE
    played = game(rehearsal)
    run_method(replace(request, until=until), played)
    rehearsal.texts.add_extra(request.renderer.full(), extra_texts)
    host = max(0.0, before + time.perf_counter() - started - rehearsal.spent)
    reading, measured = rehearsal.timed()
    tokens, evaluations = rehearsal.tokens, rehearsal.evaluations
    rate = tokens / reading if reading else 0.0
    steps, prompts = rows_to_read(request)
    price: float | None = getattr(session, "price", None)
    more = sum(len(row.read) for row in steps)
    adaptive = bool(getattr(request.method, "adaptive", False))
    if adaptive and request.budget is not None:
        # With other values, the method may fit more into its budget than it did here.
        coalitions = 2 ** min(len(request.adapter.features), EXPONENTS) * request.renderer.draws
        evaluations = max(evaluations, request.budget if played.forgotten else min(request.budget, coalitions))
    return Cost(
        method=request.method_name,
        method_reason=request.method_reason,
        features=len(request.adapter.features),
        target_tokens=len(request.target.ids),
        evaluations=evaluations + prompts,
        forwarded_tokens=tokens + more,
        whole_tokens=rehearsal.whole_tokens + more,
        batches=rehearsal.batches + len(steps),
        seconds=host + reading + (more / rate if rate else 0.0),
        tokens_per_second=rate,
        batch_bytes=rehearsal.batch_bytes(lambda plan: _batch_bytes(plan, session, request)),
        model_bytes=session.info.weights_bytes,
        at_most=adaptive or request.until is not None,
        measured=measured,
        target_end=request.target.end,
        encoded_media=rehearsal.encoded_media,
        requests=rehearsal.requests + (len(steps) if rehearsal.requests else 0),
        texts=max(rehearsal.texts.count, evaluations * request.samples),
        price=None if price is None else price * (tokens + more) / 1e6,
    )


def _batch_bytes(plan: Plan, session: Session, request: Request) -> int:
    largest = max(plan.bytes(batch, session.row_bytes) for batch in plan.batches)
    return largest + (LOGITS_BYTES if request.target_fn.needs is Needs.LOGITS else 0)

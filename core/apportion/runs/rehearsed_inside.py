"""Questions of white-box methods, answered with made-up values; counts what the model would read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.inside import Gradients, ModuleGradients, Trace
from apportion.runs.calibration import Probe, Speed, growing_probes
from apportion.runs.white_box import Embedded, Tracing
from apportion.scoring.work import Work, attended

__all__ = ["RehearsedInside"]


@dataclass(slots=True)
class RehearsedInside:
    """Answers with made-up values and gradients; only traces and edited forward passes are real.

    Attributes:
        tokens: number of tokens that the model would read.
        forwards: number of forward passes.
        spent: seconds of the forward passes that were real; the run makes them too.
        batch_bytes: upper estimate of the memory of the largest batch; ``None`` if it is unknown, as that of traces, of
            edits, and of prompts that are computed layer by layer.
    """

    tokens: int = 0
    forwards: int = 0
    spent: float = 0.0
    batch_bytes: int | None = 0
    _work: Work = field(default_factory=Work)
    _question: Embedded | None = None
    _traces: dict[object, tuple[Trace, float]] = field(default_factory=dict)
    _shapes: dict[object, tuple[Mapping[str, Tensor], ...]] = field(default_factory=dict)
    _other_seconds: float = 0.0

    def embedded(self, question: Embedded) -> Any:
        """Answer a question on embeddings."""
        self.tokens += question.read
        self.forwards += len(question.scorer.readout.targets)
        if question.one.edits:  # its functions may expect tensors of the model
            self.batch_bytes = None
            found, seconds = self._real(question)
            self._other_seconds += seconds
            return found
        self._question = self._question or question
        self._work += _work(question)
        values = _smooth(question)
        if question.modules is not None:
            return self._module_gradients(question, values.detach())
        self._weigh(question)
        if not question.gradients:
            return values if question.differentiable else values.detach()
        outputs = values.shape[1] if question.tokens else 1
        points, following = question.one.points.detach(), question.one.following
        generated = None if following is None else following.detach().expand(outputs, *following.shape)
        return Gradients(values.detach(), points.expand(outputs, *points.shape), generated)

    def traced(self, question: Tracing) -> Trace:
        """Return real internals, because only the model knows their shapes; one forward pass per kind of question."""
        self.tokens += question.read
        self.forwards += 1
        asked = None if question.edits else (question.hidden, question.attentions, question.modules, question.last)
        self.batch_bytes = None
        known = self._traces.get(asked) if asked is not None else None
        if known is None:
            known = self._real(question)
            if asked is not None:
                self._traces[asked] = known
        self._other_seconds += known[1]
        return known[0]

    def timed(self) -> tuple[float, str]:
        """Estimate the time of all passes, forward and backward, and describe how it was measured."""
        question = self._question
        if question is None:
            return self._other_seconds, ""
        longest = question.one.points.shape[1]
        probes = growing_probes(longest, lambda tokens: _gradient(question, tokens), self._work)
        speed = Speed.fitted(probes)
        rows = len(question.one.points)
        while rows > 1 and speed.seconds(_work(_part(question, rows))) > speed.allowed(self._work) / 2:
            rows //= 2
        if rows > 1:
            speed = speed.scaled(_gradient(question, longest, rows))
        return speed.seconds(self._work) + self._other_seconds, f"{speed.described(longest)}, with gradients"

    def _module_gradients(self, question: Embedded, values: Float[Tensor, "B K"]) -> ModuleGradients:
        """Activations of one row, repeated, and gradients that are equal to them."""
        modules = question.modules
        assert modules is not None
        asked = modules.names, modules.side
        if asked not in self._shapes:
            row = replace(question, one=question.one.rows(slice(1)), modules=replace(modules, given=()), tokens=False)
            self._shapes[asked] = self._real(row)[0].activations
        rows, outputs = len(question.one.points), values.shape[1] if question.tokens else 1
        activations = tuple(
            {name: one.expand(rows, *one.shape[1:]) for name, one in part.items()} for part in self._shapes[asked]
        )
        slopes = tuple({name: one.expand(outputs, *one.shape) for name, one in part.items()} for part in activations)
        self._weigh(question, activations)
        return ModuleGradients(values, activations, slopes if question.gradients else ())

    def _real(self, question: Embedded | Tracing) -> tuple[Any, float]:
        """An answer of the model, and its time in seconds."""
        started = time.perf_counter()
        found = question.compute()
        seconds = time.perf_counter() - started
        self.spent += seconds
        return found, seconds

    def _weigh(self, question: Embedded, activations: Sequence[Mapping[str, Tensor]] = ()) -> None:
        """Count the memory of a question: graphs of the prompts read at once, and what is found of all of them."""
        points, readout = question.one.points, question.readout
        prompt = len(question.one.prefix) + points.shape[1]
        fits = readout.rows_at_once(prompt)
        if self.batch_bytes is None or (question.gradients and not fits):
            self.batch_bytes = None
            return
        rows = min(fits, len(points)) if question.gradients else len(points)
        outputs = question.scorer.readout.n_outputs if question.tokens else 1
        own = sum(one.nbytes for part in activations for one in part.values())
        found = own * (1 + outputs) if question.modules else points.nbytes * outputs
        self.batch_bytes = max(
            self.batch_bytes, rows * readout.row_bytes(prompt) + (found if question.gradients else own)
        )


def _smooth(question: Embedded) -> Float[Tensor, "B K"]:
    """Smooth values with a gradient, without the model."""
    with torch.enable_grad():
        smooth = question.one.points.double().square().mean((1, 2)).cpu()
        return -0.5 - smooth[:, None] * torch.arange(1, question.scorer.readout.n_outputs + 1, dtype=torch.float64)


def _passes(question: Embedded) -> int:
    """Forward passes and backward passes, in units of one forward and one backward pass."""
    outputs = question.scorer.readout.n_outputs if question.gradients and question.tokens else 1
    return -(-(1 + outputs) // 2)


def _work(question: Embedded) -> Work:
    rows, prompt, _ = question.one.points.shape
    lengths = [len(question.one.prefix) + prompt + len(ids) - 1 for ids in question.scorer.readout.targets]
    times = _passes(question)
    pairs = rows * sum(attended(length, length) for length in lengths)
    return Work(len(lengths) * times, question.read * times, pairs * times)


def _part(question: Embedded, rows: int, tokens: int | None = None) -> Embedded:
    one = replace(question.one, points=question.one.points[:rows, :tokens], following=None)
    return replace(question, one=one, modules=None, gradients=True, tokens=False)


def _gradient(question: Embedded, tokens: int, rows: int = 1) -> Probe:
    """Time a forward and a backward pass over the first embeddings of some prompts."""
    part = _part(question, rows, tokens)
    started = time.perf_counter()
    part.compute()
    return Probe(tokens, _work(part), time.perf_counter() - started)

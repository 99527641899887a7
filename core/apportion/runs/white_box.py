"""Questions of white-box methods to the session, and their cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.inside import Edits, Gradients, InsideSession, ModuleGradients, Trace
from apportion.runs.run import Ask, Call
from apportion.scoring.scorer import Scorer
from apportion.scoring.white_box import EmbeddedReadout, ModulesToRead, Pass

__all__ = ["Embedded", "Tracing", "WhiteBox"]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Values of prompts given by their embeddings, with or without gradients.

    Attributes:
        readout: reads them with the session.
        scorer: the run's scorer, which counts.
        one: the forward pass.
        gradients: gradients are computed too.
        tokens: of each target token too, not only of the whole target.
        modules: with respect to what these modules return or read, instead of embeddings.
        differentiable: values without gradients are differentiable.
        reads_prefix: the tokens before the prompts are read now; else they were read before.
    """

    readout: EmbeddedReadout
    scorer: Scorer
    one: Pass
    gradients: bool = False
    tokens: bool = True
    modules: ModulesToRead | None = None
    differentiable: bool = True
    reads_prefix: bool = True

    @property
    def read(self) -> int:
        """Number of tokens that the model reads."""
        rows, prompt, _ = self.one.points.shape
        prefix, shares = len(self.one.prefix), self.scorer.session.layout.prefix_sharing
        before = 0 if shares else prefix
        once = prefix if shares and self.reads_prefix else 0
        return int(once + rows * sum(before + prompt + len(ids) - 1 for ids in self.scorer.readout.targets))

    def compute(self) -> Any:
        """Compute them now, without counting."""
        self.scorer.readout.prepare(self.scorer.score)
        if self.modules is not None:
            return self.readout.module_gradients(self.one, self.modules, tokens=self.tokens, slopes=self.gradients)
        if self.gradients:
            return self.readout.gradients(self.one, tokens=self.tokens)
        return self.readout.values(self.one, differentiable=self.differentiable)

    def answer(self) -> Any:
        """Compute them now, and count the evaluations."""
        found = self.compute()
        self.scorer.count(len(self.one.points), self.read)
        return found


@dataclass(frozen=True, slots=True)
class Tracing:
    """Internals of one forward pass over a prompt and the target."""

    session: InsideSession
    scorer: Scorer
    prompt: tuple[int, ...]
    hidden: bool
    attentions: bool
    modules: tuple[str, ...]
    edits: Edits
    last: int | None

    @property
    def read(self) -> int:
        """Number of tokens that the model reads."""
        return len(self.prompt) + len(self.scorer.readout.targets[0]) - 1

    def compute(self) -> Trace:
        """Trace the forward pass now, without counting."""
        return self.session.trace(
            self.prompt,
            self.scorer.readout.targets[0],
            hidden=self.hidden,
            attentions=self.attentions,
            modules=self.modules,
            edits=self.edits,
            last=self.last,
        )

    def answer(self) -> Trace:
        """Trace the forward pass now, and count it."""
        found = self.compute()
        self.scorer.count(1, self.read)
        return found


@dataclass(slots=True)
class WhiteBox:
    """Takes the questions of a white-box method to the session; see ``AskInside``.

    Attributes:
        session: the session.
        scorer: the run's scorer.
        put: takes any question of the run to the session.
    """

    session: InsideSession
    scorer: Scorer
    put: Ask
    _prefix: tuple[int, ...] = field(default=(), init=False)

    def embeddings(self, ids: tuple[int, ...], *, target: bool) -> Float[Tensor, "L D"]:
        """Input embeddings of tokens; they do not count."""
        found: Tensor = self.put(Call(partial(self.session.embeddings, ids, target=target)))
        return found

    def rows_at_once(self, prompt: int, extra: int = 0) -> int:
        """Number of prompts of this length that fit the memory budget with their backward passes; 0 if none does."""
        found: int = self.put(Call(partial(self._readout.rows_at_once, prompt, extra)))
        return found

    def values(self, one: Pass) -> Float[Tensor, "B K"]:
        """Values of prompts, differentiable."""
        # The mode of the method's thread, which may not be the one that computes.
        found: Tensor = self.put(self._embedded(one, differentiable=torch.is_grad_enabled()))
        return found

    def gradients(self, one: Pass, *, tokens: bool) -> Gradients:
        """Values, and gradients with respect to embeddings."""
        found: Gradients = self.put(self._embedded(one, gradients=True, tokens=tokens))
        return found

    def module_gradients(self, one: Pass, modules: ModulesToRead, *, tokens: bool, slopes: bool) -> ModuleGradients:
        """Values, and gradients with respect to what modules return or read."""
        found: ModuleGradients = self.put(
            self._embedded(one, gradients=slopes, tokens=tokens, modules=modules, differentiable=slopes)
        )
        return found

    def trace(
        self,
        prompt: tuple[int, ...],
        *,
        hidden: bool,
        attentions: bool,
        modules: tuple[str, ...],
        edits: Edits,
        last: int | None,
    ) -> Trace:
        """Internals of one forward pass over a prompt and the target."""
        found: Trace = self.put(Tracing(self.session, self.scorer, prompt, hidden, attentions, modules, edits, last))
        return found

    @property
    def _readout(self) -> EmbeddedReadout:
        return EmbeddedReadout(self.session, self.scorer.readout)

    def _embedded(self, one: Pass, **settings: Any) -> Embedded:
        reads = bool(one.prefix) and one.prefix != self._prefix
        self._prefix = one.prefix or self._prefix
        return Embedded(self._readout, self.scorer, one, reads_prefix=reads, **settings)

"""From a batch to values: what the target function needs is read from the session, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import CapabilityError, PluginError
from apportion.protocols.backend import Capability, LogitsSession, ScoringBatch, Session
from apportion.protocols.targets import Needs, Scores, Target, TargetFunction

__all__ = ["LOGITS_BYTES", "Readout", "check_shape"]

ScoreBatch = Callable[[Session, ScoringBatch], Float[Tensor, "B T"]]

LOGITS_BYTES = 64 * 2**20
"""Memory for the logits that a target function sees at once; a row of them is always allowed."""


class Readout:
    """Values of batches, for one target and one target function.

    Args:
        session: the loaded model.
        target: what follows every prompt, and what it is compared with.
        target_fn: turns scores into values.
        score_batch: how a batch gets its log-probabilities (the hook ``apportion_score``).
        reference: token ids of the prompt that all are compared with, where the target function asks for one.

    Raises:
        CapabilityError: the session cannot give what the target function needs.
    """

    def __init__(
        self,
        session: Session,
        target: Target,
        target_fn: TargetFunction,
        score_batch: ScoreBatch,
        reference: Sequence[int] | None = None,
    ) -> None:
        self._session = session
        self._target = target
        self._target_fn = target_fn
        self._score_batch = score_batch
        self._reference_ids = reference
        self._reference: Scores | None = None
        if target_fn.needs is Needs.LOGITS and Capability.LOGITS not in session.capabilities:
            raise CapabilityError(
                f"The target function needs logits, which the backend {session.info.backend!r} does not give. "
                f"It gives: {', '.join(sorted(c.value for c in session.capabilities))}."
            )

    @property
    def targets(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of what is scored after each prompt: the target, then its contrast."""
        contrast = self._target.contrast
        return (self._target.ids,) if contrast is None else (self._target.ids, contrast.ids)

    @property
    def n_outputs(self) -> int:
        """K."""
        return 1 + len(self._target.ids)

    @property
    def reads_logits(self) -> bool:
        """Whether values are made from logits, batch by batch, instead of log-probabilities."""
        return self._target_fn.needs is Needs.LOGITS

    def prepare(self) -> None:
        """Read what all prompts are compared with, if the target function asks for it."""
        self._referred()

    def read(self, batch: ScoringBatch) -> Tensor:
        """What is read of a batch: values or log-probabilities."""
        return self.values(batch) if self.reads_logits else self.log_probs(batch)

    def values(self, batch: ScoringBatch) -> Float[Tensor, "B K"]:
        """Values of the rows of a batch by their logits, after the target and what it is contrasted with.

        Raises:
            BatchTooLargeError: memory ran out.
            PluginError: a session or target function gave another shape.
        """
        return torch.cat([self.applied(*parts) for parts in self._logits(batch)])

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the rows of a batch; what stands beyond a row's own target says nothing.

        Raises:
            BatchTooLargeError: memory ran out.
            PluginError: a session or plugin gave another shape.
        """
        found = self._score_batch(self._session, batch)
        wanted = (batch.n_rows, batch.n_targets)
        check_shape("scoring a batch (a session, or a plugin's apportion_score)", found, wanted)
        return found

    def applied(self, scores: Scores, contrast: Scores | None = None) -> Float[Tensor, "B K"]:
        """Values of scores, float64 on the CPU."""
        given = replace(scores, contrast=contrast, reference=self._referred())
        found = scores.log_probs if scores.log_probs is not None else scores.logits
        assert found is not None
        values = self._target_fn(given, self._target)
        check_shape(f"the target function {type(self._target_fn).__name__}", values, (len(found), self.n_outputs))
        return values.to("cpu", torch.float64)

    def _logits(self, batch: ScoringBatch) -> Iterator[tuple[Scores, ...]]:
        """Logits of the same rows after each target, a few rows at a time."""
        assert isinstance(self._session, LogitsSession)
        prompts = [row.prompt for row in batch.rows]
        prefix = tuple(batch.prefix_ids.tolist())
        after = [ScoringBatch.of(prompts, prefix, ids, packed=batch.packed) for ids in self.targets]
        rows = self._rows_at_once(sum(map(len, self.targets)))
        for parts in zip(*(self._session.logits(one, rows) for one in after), strict=True):
            yield tuple(Scores(logits=part) for part in parts)

    def _rows_at_once(self, tokens: int) -> int:
        vocabulary = self._session.info.vocabulary
        return 1 if vocabulary is None else max(1, LOGITS_BYTES // (4 * vocabulary * tokens))

    def _referred(self) -> Scores | None:
        """Scores of the reference prompt, read when they are first needed."""
        if self._reference_ids is None:
            return None
        if self._reference is None:
            batch = ScoringBatch.of([tuple(self._reference_ids)], (), self._target.ids)
            if self.reads_logits:
                assert isinstance(self._session, LogitsSession)
                (logits,) = self._session.logits(batch, 1)
                self._reference = Scores(logits=logits)
            else:
                self._reference = Scores(log_probs=self.log_probs(batch))
        return self._reference


def check_shape(what: str, found: object, wanted: tuple[int, int]) -> None:
    """Hold a session, plugin or target function to the shape of what it gives.

    Raises:
        PluginError: it gave something else.
    """
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != wanted:
        raise PluginError(f"{what[0].upper()}{what[1:]} gave {shape} instead of a tensor of shape {wanted}.")

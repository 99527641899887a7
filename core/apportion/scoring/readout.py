"""Readout of a batch: the session computes only the scores that the target function needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import ApportionError, CapabilityError, PluginError
from apportion.protocols.backend import Capability, LogitsSession, Session
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Needs, Scores, Target, TargetFunction
from apportion.scoring.batches import Turns
from apportion.scoring.parts import Part, beside, parts_of

__all__ = ["LOGITS_BYTES", "FlatLogits", "LastLogits", "Readout", "check_shape"]

LOGITS_BYTES = 64 * 2**20
"""Maximum size in bytes of the logits passed to a target function at once; one row is always allowed."""

ScoreBatch = Callable[[ScoringBatch, "Readout | FlatLogits | LastLogits"], Tensor]


class Readout:
    """Scores a batch with a session, for one target function.

    It is the ``read`` of the hook ``apportion_score``. It returns log-probabilities ``Float[B, T]``, or, if the target
    function needs logits, the function's values ``Float[B, K]``, because logits are too large to pass on.

    Args:
        session: the loaded model.
        target: the target that follows every prompt, with its contrast if it has one.
        target_fn: turns scores into values.
        reference: the prompt that all others are compared with, if the target function requires one.
        turns: lock to release while the session works.

    Attributes:
        needs: kind of scores that is read.

    Raises:
        CapabilityError: the session cannot return the scores that the target function needs.
    """

    def __init__(
        self,
        session: Session,
        target: Target,
        target_fn: TargetFunction,
        reference: ModelInput | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.needs = target_fn.needs
        self._session = session
        self._target = target
        self._target_fn = target_fn
        self._reference_prompt = reference
        self._reference: Scores | None = None
        self._turns = turns or Turns()
        if self.needs is Needs.LOGITS and Capability.LOGITS not in session.capabilities:
            raise CapabilityError(
                f"The target function needs logits, which the backend {session.info.backend!r} does not provide. "
                f"It provides: {', '.join(sorted(c.value for c in session.capabilities))}."
            )

    @property
    def targets(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of the targets that are scored after each prompt: the target, then its contrast if it has one."""
        contrast = self._target.contrast
        return (self._target.ids,) if contrast is None else (self._target.ids, contrast.ids)

    @property
    def n_outputs(self) -> int:
        """K."""
        return 1 + len(self._target.ids)

    def __call__(self, session: Session, batch: ScoringBatch) -> Tensor:
        """Score a batch with a session; returns ``Float[B, T]`` or ``Float[B, K]``, depending on ``needs``.

        Raises:
            BatchTooLargeError: memory ran out.
            PluginError: a session or target function returned another shape.
        """
        if self.needs is Needs.LOG_PROBS:
            with self._turns.lent():
                return session.log_probs(batch)
        return torch.cat([self.applied(*parts) for parts in self._logits(session, batch)])

    def width(self, batch: ScoringBatch) -> int:
        """Number of columns that a batch is read into."""
        return batch.n_targets if self.needs is Needs.LOG_PROBS else self.n_outputs

    def parts(self, inputs: Sequence[ModelInput], *, single: bool = False) -> list[list[list[Part]]]:
        """The parts of each target after each input: one list of inputs per target.

        Args:
            inputs: inputs, whose answers are those of the target.
            single: one part for each token.
        """
        own, layout = self._target.ids, self._session.layout
        joint = layout.joint and not layout.directed
        return [
            [parts_of(beside(item, own, ids) if which else item, ids, joint=joint, single=single) for item in inputs]
            for which, ids in enumerate(self.targets)
        ]

    def prepare(self, score: ScoreBatch) -> None:
        """Score the reference prompt, once, if the target function has one.

        Args:
            score: scores a batch with a ``read`` such as this one.
        """
        prompt = self._reference_prompt
        if prompt is None or self._reference is not None:
            return
        logits = self.needs is Needs.LOGITS
        parts = self.parts([prompt], single=logits and prompt.answer is not None)[0][0]
        if not logits:
            found = [part.of(score(ScoringBatch((part.row,)), self)[0]) for part in parts]
            self._reference = Scores(log_probs=torch.cat(found)[None])
        elif len(parts) == 1:
            flat = score(ScoringBatch((parts[0].row,)), FlatLogits())
            self._reference = Scores(logits=flat.reshape(1, len(self._target.ids), -1))
        else:
            last = [score(ScoringBatch((part.row,)), LastLogits(1, self._turns)) for part in parts]
            self._reference = Scores(logits=torch.stack(last, dim=1))

    def applied(
        self, scores: Scores, contrast: Scores | None = None, *, reference: Scores | None = None
    ) -> Float[Tensor, "B K"]:
        """Apply the target function; values are float64 on the CPU, and differentiable if the function is.

        Args:
            scores: scores of the target.
            contrast: scores of the contrast, if there is one.
            reference: scores of the reference prompt; ``None`` for those from ``prepare``.

        Raises:
            PluginError: the target function failed, or returned another shape.
        """
        given = replace(scores, contrast=contrast, reference=reference or self._reference)
        found = scores.log_probs if scores.log_probs is not None else scores.logits
        assert found is not None
        name = type(self._target_fn).__name__
        try:
            values = self._target_fn(given, self._target)
        except (ApportionError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise PluginError(
                f"The target function {name} failed on {self.needs.value} of shape {list(found.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        check_shape(f"the target function {name}", values, (len(found), self.n_outputs))
        return values.to("cpu", torch.float64)

    def scores_of(self, logits: Float[Tensor, "B T V"], target: tuple[int, ...]) -> Scores:
        """Scores that the target function needs, from the logits before each target token; differentiable."""
        if self.needs is Needs.LOGITS:
            return Scores(logits=logits)
        return Scores(log_probs=log_probs_of(logits, target))

    @property
    def additive(self) -> bool:
        """True if the value of the whole target is known to be the sum of the values of its tokens."""
        return bool(getattr(self._target_fn, "additive", False))

    @property
    def has_reference(self) -> bool:
        """True if all prompts are compared with a reference prompt."""
        return self._reference_prompt is not None

    @property
    def reference_ids(self) -> tuple[int, ...] | None:
        """Token ids of the reference prompt, if there is one."""
        return None if self._reference_prompt is None else self._reference_prompt.ids

    def _logits(self, session: Session, batch: ScoringBatch) -> Iterator[tuple[Scores, ...]]:
        """Logits of the same rows for each target, a few rows at a time."""
        assert isinstance(session, LogitsSession)
        after = [replace(batch, rows=tuple(replace(row, target=ids) for row in batch.rows)) for ids in self.targets]
        rows = self.inputs_at_once
        streams = zip(*(session.logits(one, rows) for one in after), strict=True)
        while True:
            with self._turns.lent():
                parts = next(streams, None)
            if parts is None:
                return
            yield tuple(Scores(logits=part) for part in parts)

    @property
    def inputs_at_once(self) -> int:
        """Number of inputs whose logits, for all targets, are passed to the target function at once."""
        tokens = sum(map(len, self.targets))
        known = self._session.info.written_vocabulary is not None
        return max(1, LOGITS_BYTES // (4 * self.vocabulary * tokens)) if known else 1

    @property
    def vocabulary(self) -> int:
        """Number of logits at each position; if it is not known, as many as the targets need."""
        return self._session.info.written_vocabulary or 1 + max(map(max, self.targets))


def log_probs_of(logits: Float[Tensor, "B T V"], ids: tuple[int, ...]) -> Float[Tensor, "B T"]:
    """Log-probability of one token at each position, in fp32 or better; differentiable."""
    found = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return found[:, torch.arange(len(ids)), torch.tensor(ids)]


class FlatLogits:
    """Reads the logits of a single row, flattened to ``Float[1, T·V]``."""

    needs = Needs.LOGITS

    def __call__(self, session: Session, batch: ScoringBatch) -> Tensor:
        """Logits at the position before each target token."""
        assert isinstance(session, LogitsSession)
        (logits,) = session.logits(batch, 1)
        return logits.flatten(1)


class LastLogits:
    """Reads the logits of the last target token of each row, ``Float[B, V]``.

    Args:
        at_once: number of rows whose logits the session returns at once.
        turns: lock to release while the session works.
    """

    needs = Needs.LOGITS

    def __init__(self, at_once: int, turns: Turns) -> None:
        self._at_once = at_once
        self._turns = turns

    def __call__(self, session: Session, batch: ScoringBatch) -> Tensor:
        """Logits at the position before the last token of each row's target."""
        assert isinstance(session, LogitsSession)
        last, found = iter([len(row.target) - 1 for row in batch.rows]), list[Tensor]()
        stream = iter(session.logits(batch, self._at_once))
        while True:
            with self._turns.lent():
                part = next(stream, None)
            if part is None:
                return torch.stack(found)
            found += [row[next(last)].clone() for row in part]  # a view would keep the whole part


def check_shape(what: str, found: object, wanted: tuple[int, int]) -> None:
    """Check the shape and precision of the return value of a session, plugin or target function.

    Raises:
        PluginError: the value is not a tensor of the expected shape, in fp32 or fp64.
    """
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    start = what[0].upper() + what[1:]
    if shape != wanted:
        raise PluginError(f"{start} returned {shape} instead of a tensor of shape {wanted}.")
    if isinstance(found, Tensor) and found.dtype not in (torch.float32, torch.float64):
        raise PluginError(f"{start} returned numbers of {found.dtype}; fp32 or fp64 is needed.")

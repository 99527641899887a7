"""From model inputs to values: plan, score batch by batch, halve what does not fit, apply the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.backend import Capability, LogitsSession, ScoringBatch, Session
from apportion.errors import BatchTooLargeError, CapabilityError, InputError, PluginError
from apportion.inputs import ModelInput
from apportion.planner import Batch, Plan, plan
from apportion.progress import ProgressEvent, Report
from apportion.targets import Needs, Scores, Target, TargetFunction

__all__ = ["Scorer", "Tally"]

ScoreBatch = Callable[[Session, ScoringBatch], Float[Tensor, "B T"]]
Recall = Callable[[Session, Sequence[tuple[int, ...]]], Sequence[Float[Tensor, "N T"]]]


@dataclass(slots=True)
class Tally:
    """What scoring has cost so far; a run that goes on from another goes on counting.

    Attributes:
        evaluations: inputs scored.
        cached: inputs whose scores were recalled.
        forwarded_tokens: tokens that the model read for them.
        notes: what a reader of the result should know.
    """

    evaluations: int = 0
    cached: int = 0
    forwarded_tokens: int = 0
    notes: list[str] = field(default_factory=list)

    def copy(self) -> Tally:
        """To go on counting from, the original staying as it is."""
        return replace(self, notes=[*self.notes])


class Scorer:
    """Scores distinct model inputs with a session, for one target and one target function.

    Args:
        session: the loaded model.
        target: what follows every prompt.
        target_fn: turns scores into values.
        score_batch: how a batch gets its log-probabilities (the hook ``apportion_score``).
        report: where progress goes.
        recall: what is known of some prompts before they are scored (the hook ``apportion_recall``).
        share_prefixes: whether plans may share prefixes, where the session can.
        tally: where to count; a new one if ``None``.

    Raises:
        CapabilityError: the session cannot give what the target function needs.
    """

    def __init__(
        self,
        session: Session,
        target: Target,
        target_fn: TargetFunction,
        *,
        score_batch: ScoreBatch,
        report: Report,
        recall: Recall | None = None,
        share_prefixes: bool = True,
        tally: Tally | None = None,
    ) -> None:
        self._session = session
        self._target = target
        self._target_fn = target_fn
        self._score_batch = score_batch
        self._report = report
        self._recall = recall
        layout = session.layout
        self._layout = layout if share_prefixes else replace(layout, prefix_sharing=False)
        self._row_limit: int | None = None
        self.tally = tally or Tally()
        if target_fn.needs is Needs.LOGITS and Capability.LOGITS not in session.capabilities:
            raise CapabilityError(
                f"The target function needs logits, which the backend {session.info.backend!r} does not give. "
                f"It gives: {', '.join(sorted(c.value for c in session.capabilities))}."
            )

    def __call__(self, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        """Values of distinct inputs, in their order, float64 on the CPU.

        Raises:
            InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
            BatchTooLargeError: not even one row fits into memory.
        """
        sequences = [item.ids for item in inputs]
        self._check_sequences(sequences)
        known = self._recalled(sequences)
        if known is None:
            return self._scored(sequences)
        rows = ~known.isnan().any(1)
        count = int(rows.sum())
        self.tally.cached += count
        values = torch.empty(len(sequences), 1 + len(self._target.ids), dtype=torch.float64)
        values[rows] = self._applied(Scores(log_probs=known[rows]), count)
        values[~rows] = self._scored(
            [ids for ids, is_known in zip(sequences, rows.tolist(), strict=True) if not is_known]
        )
        return values

    def _recalled(self, sequences: Sequence[tuple[int, ...]]) -> Float[Tensor, "N T"] | None:
        """What is known already: NaN where it is not, ``None`` where nothing is."""
        if self._recall is None or self._target_fn.needs is not Needs.LOG_PROBS:
            return None
        known: Tensor | None = None
        for found in self._recall(self._session, sequences):
            _check_shape("a plugin's apportion_recall", found, (len(sequences), len(self._target.ids)))
            known = found if known is None else torch.where(known.isnan(), found, known)
        return None if known is None or bool(known.isnan().any(1).all()) else known

    def _scored(self, sequences: Sequence[tuple[int, ...]]) -> Float[Tensor, "N K"]:
        """Values of sequences that are not known yet."""
        if not sequences:
            return torch.empty(0, 1 + len(self._target.ids), dtype=torch.float64)
        info = self._session.info
        row_bytes = partial(self._session.row_bytes, logits=self._target_fn.needs is Needs.LOGITS)
        schedule = plan(sequences, self._target.ids, self._layout, row_bytes, info.memory_budget)
        values = torch.empty(len(sequences), 1 + len(self._target.ids), dtype=torch.float64)
        done = 0
        self._progress(done, len(sequences))
        for batch in schedule.batches:
            for piece in self._pieces(batch):
                values[list(piece.rows)] = self._rows(schedule, piece)
                done += len(piece.rows)
                self.tally.evaluations += len(piece.rows)
                self._progress(done, len(sequences))
        self.tally.forwarded_tokens += schedule.forwarded_tokens
        return values

    def _progress(self, done: int, total: int) -> None:
        self._report(ProgressEvent("score", done, total, self.tally.evaluations))

    def _pieces(self, batch: Batch) -> list[Batch]:
        size = self._row_limit or len(batch.rows)
        return [Batch(batch.rows[i : i + size], batch.prefix) for i in range(0, len(batch.rows), size)]

    def _rows(self, schedule: Plan, batch: Batch) -> Float[Tensor, "B K"]:
        try:
            return self._values(schedule.tensors(batch))
        except (BatchTooLargeError, torch.OutOfMemoryError) as error:
            if len(batch.rows) == 1:
                raise BatchTooLargeError(
                    f"A single prompt of {len(schedule.sequences[batch.rows[0]])} tokens does not fit into the "
                    f"memory of {self._session.info.device}. Use a shorter prompt, a smaller dtype or another "
                    f"device. ({error})"
                ) from error
        # Outside the except block, so that the failed batch's tensors are free before the next try.
        half = len(batch.rows) // 2
        self._row_limit = min(half, self._row_limit or half)
        self.tally.notes.append(f"memory ran out on a batch of {len(batch.rows)} rows; went on with {half}")
        halves = (Batch(batch.rows[:half], batch.prefix), Batch(batch.rows[half:], batch.prefix))
        return torch.cat([self._rows(schedule, part) for part in halves])

    def _values(self, batch: ScoringBatch) -> Float[Tensor, "B K"]:
        rows, targets = batch.n_rows, len(self._target.ids)
        if self._target_fn.needs is Needs.LOGITS:
            assert isinstance(self._session, LogitsSession)
            scores = Scores(logits=self._session.logits(batch))
        else:
            log_probs = self._score_batch(self._session, batch)
            _check_shape("scoring a batch (a session, or a plugin's apportion_score)", log_probs, (rows, targets))
            scores = Scores(log_probs=log_probs)
        return self._applied(scores, rows)

    def _applied(self, scores: Scores, rows: int) -> Float[Tensor, "B K"]:
        values = self._target_fn(scores, self._target)
        _check_shape(f"the target function {type(self._target_fn).__name__}", values, (rows, 1 + len(self._target.ids)))
        return values.to("cpu", torch.float64)

    def _check_sequences(self, sequences: Sequence[tuple[int, ...]]) -> None:
        vocabulary = self._session.info.vocabulary
        largest = max(max(max(ids) for ids in sequences), max(self._target.ids))
        if vocabulary is not None and largest >= vocabulary:
            raise InputError(
                f"The tokenizer gave the token id {largest}, and the model's vocabulary has {vocabulary} tokens. "
                "Use the model's own tokenizer, or resize the model's embedding for added tokens."
            )
        limit = self._session.info.context_length
        longest = max(len(ids) for ids in sequences)
        if limit is not None and longest + len(self._target.ids) > limit:
            raise InputError(
                f"A prompt of {longest} tokens and a target of {len(self._target.ids)} exceed the model's context "
                f"length of {limit} tokens. Shorten the prompt, its baselines or the target."
            )


def _check_shape(what: str, found: object, wanted: tuple[int, int]) -> None:
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if shape != wanted:
        raise PluginError(f"{what[0].upper()}{what[1:]} gave {shape} instead of a tensor of shape {wanted}.")

"""From model inputs to values: plan, score batch by batch, halve what does not fit, apply the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.backend import Session
from apportion.errors import BatchTooLargeError, InputError
from apportion.inputs import ModelInput
from apportion.planner import Batch, Plan, plan
from apportion.progress import ProgressEvent, Report
from apportion.readout import Readout, check_shape
from apportion.targets import Scores

__all__ = ["Scorer", "Tally"]

Recall = Callable[[Session, Sequence[tuple[int, ...]], tuple[int, ...]], Sequence[Float[Tensor, "N T"]]]


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
        readout: turns batches into values of the target.
        report: where progress goes.
        recall: what is known of some prompts before they are scored (the hook ``apportion_recall``); ``None`` where
            log-probabilities are not all that is needed.
        share_prefixes: whether plans may share prefixes, where the session can.
        tally: where to count; a new one if ``None``.
    """

    def __init__(
        self,
        session: Session,
        readout: Readout,
        *,
        report: Report,
        recall: Recall | None = None,
        share_prefixes: bool = True,
        tally: Tally | None = None,
    ) -> None:
        self.session = session
        self._readout = readout
        self._report = report
        self._recall = recall
        layout = session.layout
        self._layout = layout if share_prefixes else replace(layout, prefix_sharing=False)
        self._row_limit: int | None = None
        self.tally = tally or Tally()

    def __call__(self, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        """Values of distinct inputs, in their order, float64 on the CPU.

        Raises:
            InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
            BatchTooLargeError: not even one row fits into memory.
        """
        sequences = [item.ids for item in inputs]
        self.check(sequences)
        known = self._recalled(sequences)
        if known is None:
            return self._scored(sequences)
        rows = ~torch.cat(known, 1).isnan().any(1)
        self.tally.cached += int(rows.sum())
        values = torch.empty(len(sequences), self._readout.n_outputs, dtype=torch.float64)
        if bool(rows.any()):
            values[rows] = self._readout.applied(*(Scores(log_probs=part[rows]) for part in known))
        values[~rows] = self._scored(
            [ids for ids, is_known in zip(sequences, rows.tolist(), strict=True) if not is_known]
        )
        return values

    def _recalled(self, sequences: Sequence[tuple[int, ...]]) -> list[Float[Tensor, "N T"]] | None:
        """What is known already of each target: NaN where it is not, ``None`` where nothing is."""
        if self._recall is None:
            return None
        known = []
        for target in self._readout.targets:
            found = torch.full((len(sequences), len(target)), torch.nan, dtype=torch.float64)
            for part in self._recall(self.session, sequences, target):
                check_shape("a plugin's apportion_recall", part, (len(sequences), len(target)))
                found = torch.where(found.isnan(), part.double(), found)
            known.append(found)
        return known

    def _scored(self, sequences: Sequence[tuple[int, ...]]) -> Float[Tensor, "N K"]:
        """Values of sequences that are not known yet."""
        values = torch.empty(len(sequences), self._readout.n_outputs, dtype=torch.float64)
        if not sequences:
            return values
        schedule = self.plan(sequences)
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

    def plan(self, sequences: Sequence[tuple[int, ...]]) -> Plan:
        """How these would be scored."""
        budget = self.session.info.memory_budget
        return plan(sequences, self._readout.targets, self._layout, self.session.row_bytes, budget)

    def _progress(self, done: int, total: int) -> None:
        self._report(ProgressEvent("score", done, total, self.tally.evaluations))

    def _pieces(self, batch: Batch) -> list[Batch]:
        size = self._row_limit or len(batch.rows)
        return [Batch(batch.rows[i : i + size], batch.prefix) for i in range(0, len(batch.rows), size)]

    def _rows(self, schedule: Plan, batch: Batch) -> Float[Tensor, "B K"]:
        try:
            return self._readout.values(schedule.tensors(batch))
        except (BatchTooLargeError, torch.OutOfMemoryError) as error:
            if len(batch.rows) == 1:
                raise BatchTooLargeError(
                    f"A single prompt of {len(schedule.sequences[batch.rows[0]])} tokens does not fit into the "
                    f"memory of {self.session.info.device}. Use a shorter prompt, a smaller dtype or another "
                    f"device. ({error})"
                ) from error
        # Outside the except block, so that the failed batch's tensors are free before the next try.
        half = len(batch.rows) // 2
        self._row_limit = min(half, self._row_limit or half)
        self.tally.notes.append(f"memory ran out on a batch of {len(batch.rows)} rows; went on with {half}")
        halves = (Batch(batch.rows[:half], batch.prefix), Batch(batch.rows[half:], batch.prefix))
        return torch.cat([self._rows(schedule, part) for part in halves])

    def check(self, sequences: Sequence[tuple[int, ...]]) -> None:
        """Refuse what cannot be scored.

        Raises:
            InputError: a sequence and the target exceed the model's context length, or a token id its vocabulary.
        """
        vocabulary = self.session.info.vocabulary
        targets = self._readout.targets
        largest = max(max(ids) for ids in (*sequences, *targets))
        if vocabulary is not None and largest >= vocabulary:
            raise InputError(
                f"The tokenizer gave the token id {largest}, and the model's vocabulary has {vocabulary} tokens. "
                "Use the model's own tokenizer, or resize the model's embedding for added tokens."
            )
        limit = self.session.info.context_length
        longest, target = max(map(len, sequences)), max(map(len, targets))
        if limit is not None and longest + target > limit:
            raise InputError(
                f"A prompt of {longest} tokens and a target of {target} exceed the model's context "
                f"length of {limit} tokens. Shorten the prompt, its baselines or the target."
            )

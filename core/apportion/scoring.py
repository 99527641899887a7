"""From model inputs to values: what is known is recalled, the rest is scored and the target function applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.backend import Session
from apportion.batches import Batches, Read
from apportion.errors import InputError
from apportion.inputs import ModelInput
from apportion.planner import Batch, Plan
from apportion.prefix_tree import Row
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
        readout: turns scores into values of the target.
        report: where progress goes.
        recall: what is known of some prompts before they are scored (the hook ``apportion_recall``); ``None`` where
            log-probabilities are not all that is needed.
        share_prefixes: whether plans may read what rows share only once, where the session can.
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
        self._batches = Batches(session, share=share_prefixes)
        self.tally = tally or Tally()

    def __call__(self, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        """Values of distinct inputs, in their order, float64 on the CPU.

        Raises:
            InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
            BatchTooLargeError: not even one row fits into memory.
        """
        sequences = [item.ids for item in inputs]
        self.check(sequences)
        return self._by_logits(sequences) if self._readout.reads_logits else self._by_log_probs(sequences)

    def plan(self, sequences: Sequence[tuple[int, ...]], kept: tuple[int, ...] | None = None) -> Plan:
        """How these would be scored, going on from what the session keeps now or from what it will keep by then."""
        targets = self._readout.targets
        rows, *also = ([Row(ids, target) for ids in sequences] for target in targets)
        if self._readout.reads_logits:
            return self._batches.plan(rows, also, kept)
        return self._batches.plan([*rows, *(row for part in also for row in part)], (), kept)

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

    def _by_log_probs(self, sequences: Sequence[tuple[int, ...]]) -> Float[Tensor, "N K"]:
        """Values from log-probabilities, of which a plugin may know some."""
        scores = [self._recalled(sequences, target) for target in self._readout.targets]
        known = [~found.isnan().any(1) for found in scores]
        new = [
            (which, i, Row(ids, target))
            for which, target in enumerate(self._readout.targets)
            for i, ids in enumerate(sequences)
            if not known[which][i]
        ]
        inputs = len({i for _, i, _ in new})
        self.tally.cached += len(sequences) - inputs
        for batch, found in self._run([row for _, _, row in new], self._readout.log_probs, inputs):
            for number, log_probs in zip(batch.rows, found, strict=True):
                which, i, row = new[number]
                scores[which][i] = log_probs[: len(row.target)]
        return self._readout.applied(*(Scores(log_probs=part) for part in scores))

    def _by_logits(self, sequences: Sequence[tuple[int, ...]]) -> Float[Tensor, "N K"]:
        """Values from logits, which are too large to keep: batch by batch."""
        values = torch.empty(len(sequences), self._readout.n_outputs, dtype=torch.float64)
        rows, *also = ([Row(ids, target) for ids in sequences] for target in self._readout.targets)
        for batch, found in self._run(rows, self._readout.values, len(sequences), also):
            values[list(batch.rows)] = found
        return values

    def _recalled(self, sequences: Sequence[tuple[int, ...]], target: tuple[int, ...]) -> Float[Tensor, "N T"]:
        """What is known already of a target: NaN where nothing is."""
        found = torch.full((len(sequences), len(target)), torch.nan, dtype=torch.float64)
        for part in self._recall(self.session, sequences, target) if self._recall is not None else ():
            check_shape("a plugin's apportion_recall", part, (len(sequences), len(target)))
            found = torch.where(found.isnan(), part.double(), found)
        return found

    def _run(
        self, rows: Sequence[Row], read: Read, inputs: int, also: Sequence[Sequence[Row]] = ()
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Batches and what was read of them; counts and reports."""
        if not rows:
            return
        self._report(ProgressEvent("score", 0, inputs, self.tally.evaluations))
        # What all are compared with is read first: a plan counts on what the session keeps.
        self._readout.prepare()
        before, done = self.tally.evaluations, 0
        for batch, found, tokens in self._batches.run(rows, read, self.tally.notes.append, also):
            yield batch, found
            done += len(batch.rows)
            self.tally.forwarded_tokens += tokens
            self.tally.evaluations = before + done * inputs // len(rows)
            self._report(ProgressEvent("score", done * inputs // len(rows), inputs, self.tally.evaluations))

"""From model inputs to values: what is known is recalled, the rest is scored and the target function applied."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.protocols.backend import ScoringBatch, Session
from apportion.protocols.inputs import ModelInput
from apportion.protocols.progress import ProgressEvent, Report
from apportion.protocols.row import Row
from apportion.protocols.targets import Scores
from apportion.scoring.batches import Batches
from apportion.scoring.plan import Plan
from apportion.scoring.readout import Readout, check_shape

__all__ = ["Inquiry", "Scorer", "Tally", "read_together"]

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
        batches: lays rows out and runs them; those of several runs may share it.
        report: where progress goes.
        recall: what is known of some prompts before they are scored (the hook ``apportion_recall``); ``None`` where
            log-probabilities are not all that is needed.
        tally: where to count; a new one if ``None``.
    """

    def __init__(
        self,
        session: Session,
        readout: Readout,
        batches: Batches,
        *,
        report: Report,
        recall: Recall | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.session = session
        self.readout = readout
        self.report = report
        self._recall = recall
        self._batches = batches
        self.tally = tally or Tally()

    def __call__(self, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        """Values of distinct inputs, in their order, float64 on the CPU.

        Raises:
            InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
            BatchTooLargeError: not even one row fits into memory.
        """
        if not self.shares:
            return self._by_logits(inputs)
        inquiry = self.inquire(inputs)
        read_together([inquiry], self._batches)
        return inquiry.values()

    @property
    def shares(self) -> bool:
        """Whether what it reads may be read together with what others do: logits are too large to keep."""
        return not self.readout.reads_logits

    def inquire(self, inputs: Sequence[ModelInput]) -> Inquiry:
        """What has to be read for the values of distinct inputs, where log-probabilities are enough.

        Raises:
            InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
        """
        sequences = [item.ids for item in inputs]
        self.check(sequences)
        return Inquiry(self, sequences, [self._recalled(sequences, target) for target in self.readout.targets])

    def plan(self, sequences: Sequence[tuple[int, ...]], kept: tuple[int, ...] | None = None) -> Plan:
        """How these would be scored, going on from what the session keeps now or from what it will keep by then."""
        targets = self.readout.targets
        rows, *also = ([Row(ids, target) for ids in sequences] for target in targets)
        if self.readout.reads_logits:
            return self._batches.plan(rows, also, kept)
        return self._batches.plan([*rows, *(row for part in also for row in part)], (), kept)

    def check(self, sequences: Sequence[tuple[int, ...]]) -> None:
        """Refuse what cannot be scored.

        Raises:
            InputError: a sequence and the target exceed the model's context length, or a token id its vocabulary.
        """
        vocabulary = self.session.info.vocabulary
        targets = self.readout.targets
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

    def _by_logits(self, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        """Values from logits, which are too large to keep: batch by batch."""
        sequences = [item.ids for item in inputs]
        self.check(sequences)
        values = torch.empty(len(sequences), self.readout.n_outputs, dtype=torch.float64)
        rows, *also = ([Row(ids, target) for ids in sequences] for target in self.readout.targets)
        count = _Count(self, len(rows), len(rows))
        count.begin()
        for batch, found, tokens in self._batches.run(rows, self.readout.values, self.tally.notes.append, also):
            values[list(batch.rows)] = found
            count.add(len(batch.rows), sum(tokens))
        return values

    def _recalled(self, sequences: Sequence[tuple[int, ...]], target: tuple[int, ...]) -> Float[Tensor, "N T"]:
        """What is known already of a target: NaN where nothing is."""
        found = torch.full((len(sequences), len(target)), torch.nan, dtype=torch.float64)
        for part in self._recall(self.session, sequences, target) if self._recall is not None else ():
            check_shape("a plugin's apportion_recall", part, (len(sequences), len(target)))
            found = torch.where(found.isnan(), part.double(), found)
        return found


class _Count:
    """How far a request for values has come: counts for the run, and reports.

    Args:
        scorer: of the run.
        rows: that are read.
        inputs: that they are of; an input has a row for each target.
    """

    def __init__(self, scorer: Scorer, rows: int, inputs: int) -> None:
        self._scorer = scorer
        self._rows = rows
        self._inputs = inputs
        self._before = scorer.tally.evaluations
        self._done = 0

    def begin(self) -> None:
        """Before anything is planned."""
        self._report()
        # What all are compared with is read first: a plan counts on what the session keeps.
        self._scorer.readout.prepare()

    def add(self, rows: int, tokens: int) -> None:
        """So many rows of a batch were read, with so many tokens."""
        self._done += rows
        self._scorer.tally.forwarded_tokens += tokens
        self._scorer.tally.evaluations = self._before + self._inputs_done
        self._report()

    @property
    def _inputs_done(self) -> int:
        return self._done * self._inputs // self._rows

    def _report(self) -> None:
        evaluations = self._scorer.tally.evaluations
        self._scorer.report(ProgressEvent("score", self._inputs_done, self._inputs, evaluations))


class Inquiry:
    """Inputs that one run asks about: what was recalled of them, and the rows that have to be read.

    Args:
        scorer: of the run.
        sequences: token ids of the inputs.
        scores: what is known of them, for each target; NaN where nothing is. It is filled in.
    """

    def __init__(
        self, scorer: Scorer, sequences: Sequence[tuple[int, ...]], scores: Sequence[Float[Tensor, "N T"]]
    ) -> None:
        self.scorer = scorer
        self._scores = scores
        known = [~found.isnan().any(1) for found in scores]
        self._places: dict[Row, list[tuple[int, int]]] = {}
        for which, target in enumerate(scorer.readout.targets):
            for i, ids in enumerate(sequences):
                if not known[which][i]:
                    self._places.setdefault(Row(ids, target), []).append((which, i))
        inputs = len({i for places in self._places.values() for _, i in places})
        scorer.tally.cached += len(sequences) - inputs
        self.count = _Count(scorer, len(self._places), inputs)

    @property
    def rows(self) -> Collection[Row]:
        """What is still to be read, each row once."""
        return self._places

    def take(self, found: Sequence[tuple[Row, Float[Tensor, " T"], int]]) -> None:
        """What was read of some rows in one batch: log-probabilities, and the tokens that it took."""
        for row, log_probs, _ in found:
            for which, i in self._places.pop(row):
                self._scores[which][i] = log_probs[: len(row.target)]
        self.count.add(len(found), sum(tokens for *_, tokens in found))

    def values(self) -> Float[Tensor, "N K"]:
        """Values of all inputs, in their order, once everything was read; float64 on the CPU."""
        return self.scorer.readout.applied(*(Scores(log_probs=part) for part in self._scores))


def read_together(inquiries: Sequence[Inquiry], batches: Batches) -> None:
    """Read what several runs ask for under one plan, each distinct row once.

    A row that several ask for counts for each of them; its tokens are on the account of the first. A batch is scored
    (the hook ``apportion_score``) for the run of its first row.

    Raises:
        BatchTooLargeError: not even one row fits into memory. What was read by then has been taken.
    """
    askers: dict[Row, list[Inquiry]] = {}
    for inquiry in inquiries:
        for row in inquiry.rows:
            askers.setdefault(row, []).append(inquiry)
    asking = [inquiry for inquiry in inquiries if inquiry.rows]

    def read(batch: ScoringBatch) -> Float[Tensor, "B T"]:
        return askers[batch.first][0].scorer.readout.log_probs(batch)

    def note(text: str) -> None:
        for inquiry in asking:
            inquiry.scorer.tally.notes.append(text)

    for inquiry in asking:
        inquiry.count.begin()
    rows = list(askers)
    for batch, found, costs in batches.run(rows, read, note) if rows else ():
        shares: dict[int, list[tuple[Row, Tensor, int]]] = {}
        for number, log_probs, tokens in zip(batch.rows, found, costs, strict=True):
            for place, inquiry in enumerate(askers[rows[number]]):
                shares.setdefault(id(inquiry), []).append((rows[number], log_probs, 0 if place else tokens))
        for inquiry in asking:
            if id(inquiry) in shares:
                inquiry.take(shares[id(inquiry)])

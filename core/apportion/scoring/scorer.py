"""Values of model inputs: cached scores are looked up, the rest is scored, and the target function is applied."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import CapabilityError, InputError, counted, listing
from apportion.protocols.backend import Session, encoded_media, media_kinds
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.progress import ProgressEvent, Report
from apportion.protocols.row import ModelInput, Row
from apportion.protocols.targets import Needs, Scores
from apportion.scoring.altered import chunks, values_of_altered
from apportion.scoring.batches import Batches
from apportion.scoring.parts import Part, distinct_rows
from apportion.scoring.plan import Plan
from apportion.scoring.readout import FlatLogits, LastLogits, Readout, check_shape

__all__ = ["PendingScores", "Scorer", "Tally", "check_inputs", "read_together"]


@dataclass(slots=True)
class Tally:
    """Cost of scoring so far; a run that continues another one continues its counts.

    Attributes:
        evaluations: number of inputs scored.
        cached: number of inputs whose scores were cached.
        forwarded_tokens: number of tokens that the model read.
        encoded_media: number of media that the session encoded.
        notes: sentences that a reader of the result should know.
    """

    evaluations: int = 0
    cached: int = 0
    forwarded_tokens: int = 0
    encoded_media: int = 0
    notes: list[str] = field(default_factory=list)

    def take_one(self, other: Tally) -> None:
        """Move one input, read or cached, from another count to this one, without its tokens."""
        if other.evaluations:
            other.evaluations, self.evaluations = other.evaluations - 1, self.evaluations + 1
        else:
            other.cached, self.cached = other.cached - 1, self.cached + 1

    def copy(self) -> Tally:
        """A copy to continue counting from; the original does not change."""
        return replace(self, notes=[*self.notes])


class Scorer:
    """Scores distinct model inputs with a session, for one target and one target function.

    Args:
        session: the loaded model.
        readout: reads scores and turns them into values of the target.
        batches: plans and runs batches; several runs may share it.
        score_batch: the hook ``apportion_score``, called with ``session``, ``batch`` and ``read`` for every batch.
        lookup: the hook ``apportion_lookup``, called with ``session`` and ``rows``; returns known log-probabilities,
            and NaN for unknown ones. ``None`` to look up nothing.
        report: receives progress events.
        tally: counts to update; new ones if ``None``.
    """

    def __init__(
        self,
        session: Session,
        readout: Readout,
        batches: Batches,
        *,
        score_batch: Callable[..., Any],
        lookup: Callable[..., Sequence[Float[Tensor, "N T"]]] | None,
        report: Report,
        tally: Tally | None = None,
    ) -> None:
        self.session = session
        self.readout = readout
        self.report = report
        self.tally = tally or Tally()
        self._score_batch = score_batch
        self._lookup = lookup
        self._batches = batches

    def __call__(self, inputs: Sequence[ModelInput]) -> Float[Tensor, "N K"]:
        """Values of distinct inputs, in order, float64 on the CPU.

        Raises:
            InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
            CapabilityError: the session does not accept the media of an input.
            BatchTooLargeError: not even one row fits into memory.
        """
        pending = self.pending(inputs)
        read_together([pending], self._batches)
        return pending.values()

    def pending(self, inputs: Sequence[ModelInput]) -> PendingScores:
        """Prepare to score distinct inputs: look up known scores, and collect the rows that remain to be read.

        Raises:
            InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
            CapabilityError: the session does not accept the media of an input.
        """
        self.check(inputs)
        if self.readout.needs is Needs.LOG_PROBS:
            each = self.readout.parts(inputs)
            return PendingScores(self, each, [self._known(some) for some in each])
        whole = {i: item for i, item in enumerate(inputs) if item.answer is None}
        rows, *also = self._whole_rows(whole.values())
        parts: list[list[Part]] = [[] for _ in inputs]
        for i, row in zip(whole, rows, strict=True):
            parts[i] = [Part(row, 0, self.readout.n_outputs)]
        altered = {i: item for i, item in enumerate(inputs) if item.answer is not None}
        values = torch.full((len(inputs), self.readout.n_outputs), torch.nan, dtype=torch.float64)
        return PendingScores(self, [parts], [values], also=also, altered=altered)

    def plans(self, inputs: Sequence[ModelInput], kept: ModelInput | None) -> list[Plan]:
        """Plan how to score inputs, continuing from the tokens that the session will keep by then."""
        if self.readout.needs is Needs.LOG_PROBS:
            rows = distinct_rows(some for part in self.readout.parts(inputs) for some in part)
            return [self._batches.plan(rows, (), kept)]
        found: list[Plan] = []
        whole = [item for item in inputs if item.answer is None]
        if whole:
            rows, *also = self._whole_rows(whole)
            found.append(self._batches.plan(rows, also, kept))
        altered = {i: item for i, item in enumerate(inputs) if item.answer is not None}
        for some in chunks(altered, self.readout.inputs_at_once):
            parts = self.readout.parts([altered[i] for i in some], single=True)
            rows = distinct_rows(one for part in parts for one in part)
            found.append(self._batches.plan(rows, (), found[-1].kept if found else kept))
        return found

    def _whole_rows(self, inputs: Iterable[ModelInput]) -> list[list[Row]]:
        """Rows of inputs before which nothing of the target is absent: one list per target."""
        items = list(inputs)
        return [[Row(item.ids, target, item.media) for item in items] for target in self.readout.targets]

    def score(self, batch: ScoringBatch, read: Readout | FlatLogits | LastLogits | None = None) -> Tensor:
        """Score a batch through the plugins' hooks.

        Raises:
            BatchTooLargeError: memory ran out.
            PluginError: a session or plugin returned another shape.
        """
        before = encoded_media(self.session)
        with self._batches.turns.taken():
            found: Tensor = self._score_batch(session=self.session, batch=batch, read=read or self.readout)
        self.tally.encoded_media += encoded_media(self.session) - before
        if read is None:
            wanted = (batch.n_rows, self.readout.width(batch))
            check_shape("scoring a batch (a session, or a plugin's apportion_score)", found, wanted)
        return found

    def trial(self, inputs: Sequence[ModelInput]) -> Plan:
        """Score inputs from the start, without looking them up or counting them, and return how; to time scoring.

        The inputs have no answers of their own. Plugins see these batches like others, so a cache stores their scores.

        Raises:
            BatchTooLargeError: not even one row fits into memory.
        """
        self.readout.prepare(self.score)
        self.session.release()
        (schedule,) = self.plans(inputs, None)
        for batch in schedule.batches:
            self.score(schedule.scoring_batch(batch))
        return schedule

    def count(self, evaluations: int, tokens: int) -> None:
        """Count evaluations that were made outside batches, and report them."""
        self.tally.evaluations += evaluations
        self.tally.forwarded_tokens += tokens
        self.report(ProgressEvent("score", evaluations, evaluations, self.tally.evaluations))

    def check(self, inputs: Sequence[ModelInput]) -> None:
        """Reject inputs that cannot be scored.

        Raises:
            InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
            CapabilityError: the session does not accept the media of an input.
        """
        check_inputs(self.session, inputs, distinct_rows(some for part in self.readout.parts(inputs) for some in part))

    def _known(self, parts: Sequence[Sequence[Part]]) -> Float[Tensor, "N T"]:
        """Look up log-probabilities of one target after each input; NaN where unknown."""
        found = torch.full((len(parts), parts[0][-1].stop), torch.nan, dtype=torch.float64)
        if self._lookup is None:
            return found
        alike: dict[tuple[int, ...], list[tuple[int, Part]]] = {}
        for i, some in enumerate(parts):
            for part in some:
                alike.setdefault(part.row.target, []).append((i, part))
        for target, places in alike.items():
            rows = list(dict.fromkeys(part.row for _, part in places))
            known = dict(zip(rows, self._looked_up(rows, len(target)), strict=True))
            for i, part in places:
                found[i, part.start : part.stop] = part.of(known[part.row])
        return found

    def _looked_up(self, rows: Sequence[Row], tokens: int) -> Float[Tensor, "N T"]:
        """Look up log-probabilities of distinct rows with one target; NaN for unknown rows."""
        found = torch.full((len(rows), tokens), torch.nan, dtype=torch.float64)
        for part in self._lookup(session=self.session, rows=rows) if self._lookup is not None else ():
            check_shape("a plugin's apportion_lookup", part, (len(rows), tokens))
            found = torch.where(found.isnan(), part.double(), found)
        return found


def check_inputs(session: Session, inputs: Sequence[ModelInput], rows: Sequence[Row]) -> None:
    """Reject inputs that a session cannot read.

    Args:
        session: the session.
        inputs: the inputs.
        rows: what is read of them, each with its target.

    Raises:
        InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
        CapabilityError: the session does not accept the media of an input.
    """
    info = session.info
    prompts, targets = [row.prompt for row in rows], [row.target for row in rows]
    for texts, vocabulary in ((prompts, info.vocabulary), (targets, info.written_vocabulary)):
        largest = max(map(max, texts))
        if vocabulary is not None and largest >= vocabulary:
            raise InputError(
                f"The tokenizer returned the token id {largest}, but the model's vocabulary has {vocabulary} "
                "tokens. Use the model's own tokenizer, or resize the model's embedding for added tokens."
            )
    _check_lengths(session, rows)
    kinds, read = {one.kind for item in inputs for one in item.media}, media_kinds(session)
    if not kinds <= read:
        names = sorted("pictures" if kind == "image" else f"media of the kind {kind!r}" for kind in kinds - read)
        why = getattr(session, "media_refusal", "")
        raise CapabilityError(
            f"The prompt contains {listing(names)}, but the backend {info.backend!r} reads only "
            f"{listing(['text', *sorted(read)])} with this model{f': {why}' if why else ''}."
        )


def _check_lengths(session: Session, rows: Sequence[Row]) -> None:
    """Reject rows that are longer than what the model reads."""
    info = session.info
    limit, longest_target = info.context_length, info.longest_target
    if session.layout.joint:
        prompt, target = max(((len(row.prompt), len(row.target)) for row in rows), key=sum)
        if limit is not None and prompt + target > limit:
            raise InputError(
                f"A prompt of {counted(prompt, 'token')} and a target of {target} exceed the model's context "
                f"length of {limit} tokens. Shorten the prompt, its baselines or the target."
            )
        return
    prompt, target = max(len(row.prompt) for row in rows), max(len(row.target) for row in rows)
    if limit is not None and prompt > limit:
        raise InputError(
            f"A prompt of {counted(prompt, 'token')} exceeds the {limit} tokens that the model's encoder reads. "
            "Shorten the prompt or its baselines."
        )
    if longest_target is not None and target > longest_target:
        raise InputError(
            f"A target of {counted(target, 'token')} exceeds the {longest_target} tokens that the model's decoder "
            "reads. Shorten the target."
        )


class _Count:
    """Progress of one request for values; updates the run's counts and reports.

    Args:
        scorer: the run's scorer.
        rows: number of rows to read.
        inputs: number of inputs that they belong to; an input has one row per target.
    """

    def __init__(self, scorer: Scorer, rows: int, inputs: int) -> None:
        self._scorer = scorer
        self._rows = rows
        self._inputs = inputs
        self._before = scorer.tally.evaluations
        self._done = 0

    def begin(self) -> None:
        """Start, before anything is planned."""
        self._report()
        # Read the reference prompt first: a plan depends on the tokens that the session keeps.
        self._scorer.readout.prepare(self._scorer.score)

    def add(self, rows: int, tokens: int) -> None:
        """Count rows that were read, and the tokens that they took."""
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


class PendingScores:
    """Inputs of one run that are being scored: their known scores, and the rows that remain to be read.

    Args:
        scorer: the run's scorer.
        parts: the parts of each target that is read separately, for each input.
        found: known scores, one table for each of these targets; NaN where unknown. The tables are filled in.
        also: rows with the same prompts and other targets, if each batch is also read with those.
        altered: inputs that are read apart from the others, by their places in ``found``: those with answers, if the
            target function needs logits.
    """

    def __init__(
        self,
        scorer: Scorer,
        parts: Sequence[Sequence[Sequence[Part]]],
        found: Sequence[Float[Tensor, "N C"]],
        also: Sequence[Sequence[Row]] = (),
        altered: Mapping[int, ModelInput] | None = None,
    ) -> None:
        self.scorer = scorer
        self.also = also
        self._found = found
        self._altered = altered or {}
        self._places: dict[Row, list[tuple[int, int, Part]]] = {}
        unknown = torch.zeros(len(found[0]), dtype=torch.bool)
        for which, (some, table) in enumerate(zip(parts, found, strict=True)):
            missing = table.isnan()
            unknown |= missing.any(1)
            for i in missing.any(1).nonzero().flatten().tolist():
                for part in some[i]:
                    if bool(missing[i, part.start : part.stop].any()):
                        self._places.setdefault(part.row, []).append((which, i, part))
        inputs = int(unknown.sum())
        scorer.tally.cached += len(unknown) - inputs
        self.count = _Count(scorer, len(self._places), inputs - len(self._altered))

    @property
    def rows(self) -> Collection[Row]:
        """The rows that remain to be read."""
        return self._places.keys()

    @property
    def shares(self) -> bool:
        """True if its rows may be read together with rows of other runs: only log-probabilities can be shared."""
        return self.scorer.readout.needs is Needs.LOG_PROBS

    def take(self, found: Sequence[tuple[Row, Float[Tensor, " C"], int]]) -> None:
        """Store the scores of some rows that were read in one batch, and count their tokens."""
        for row, numbers, _ in found:
            for which, i, part in self._places.pop(row):
                self._found[which][i, part.start : part.stop] = part.of(numbers)
        self.count.add(len(found), sum(tokens for *_, tokens in found))

    def read_altered(self, batches: Batches) -> None:
        """Read the inputs that are read apart from the others."""
        if not self._altered:
            return
        count = _Count(self.scorer, len(self._altered), len(self._altered))
        count.begin()
        readout, note = self.scorer.readout, self.scorer.tally.notes.append
        while self._altered:  # after an error, what was read is not read again
            some = next(chunks(self._altered, readout.inputs_at_once))
            values, tokens = values_of_altered(
                [self._altered[i] for i in some], readout, batches, self.scorer.score, note
            )
            self._found[0][some] = values
            self._altered = {i: item for i, item in self._altered.items() if i not in some}
            count.add(len(some), tokens)

    def values(self) -> Float[Tensor, "N K"]:
        """Values of all inputs, in order, after all rows have been read; float64 on the CPU."""
        if not self.shares:
            return self._found[0]
        # If all rows were known, nothing was read that the reference prompt would have been read before.
        self.scorer.readout.prepare(self.scorer.score)
        return self.scorer.readout.applied(*(Scores(log_probs=part) for part in self._found))


def read_together(pending: Sequence[PendingScores], batches: Batches) -> None:
    """Read the rows that several runs need, each distinct row once, under one plan if the runs can share rows.

    A row that several runs need counts as an evaluation of each; its tokens are charged to the first. A batch is passed
    to plugins (the hook ``apportion_score``) with the request of its first row's run.

    Raises:
        BatchTooLargeError: not even one row fits into memory. Scores read up to then have been stored.
    """
    for group in _alike([one for one in pending if one.rows]):
        readers = _Readers(group)
        for batch, found, costs in batches.run(readers.rows, readers.score, readers.note, group[0].also):
            readers.take(batch.rows, found, costs)
    for one in pending:
        one.read_altered(batches)


class _Readers:
    """Runs that can share rows, or a single run.

    Args:
        group: their pending scores.

    Attributes:
        rows: the distinct rows that they need.
        score: scores a batch, with the request of its first row's run.
    """

    def __init__(self, group: Sequence[PendingScores]) -> None:
        self._group = group
        self._askers: dict[Row, list[PendingScores]] = {}
        for one in group:
            one.count.begin()
            for row in one.rows:
                self._askers.setdefault(row, []).append(one)
        self.rows = list(self._askers)
        self.score = self._score if len(group) > 1 else group[0].scorer.score

    def note(self, text: str) -> None:
        """Add a note to the results of all runs."""
        for one in self._group:
            one.scorer.tally.notes.append(text)

    def take(self, numbers: Iterable[int], found: Iterable[Float[Tensor, " C"]], costs: Iterable[int]) -> None:
        """Give each run the scores of its rows, and charge their tokens to the first run that needs them."""
        shares: dict[int, list[tuple[Row, Tensor, int]]] = {}
        for number, scores, tokens in zip(numbers, found, costs, strict=True):
            row = self.rows[number]
            for place, one in enumerate(self._askers[row]):
                shares.setdefault(id(one), []).append((row, scores, 0 if place else tokens))
        for one in self._group:
            if id(one) in shares:
                one.take(shares[id(one)])

    def _score(self, batch: ScoringBatch) -> Tensor:
        return self._askers[batch.rows[0]][0].scorer.score(batch)


def _alike(pending: Sequence[PendingScores]) -> Iterator[list[PendingScores]]:
    """Group those that may be read together; each of the others is a group alone."""
    together = [one for one in pending if one.shares]
    if together:
        yield together
    yield from ([one] for one in pending if not one.shares)

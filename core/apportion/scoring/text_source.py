"""Texts that a model writes after prompts: looked up, or written once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from apportion.errors import PluginError, counted, shown
from apportion.protocols.progress import ProgressEvent, Report
from apportion.protocols.row import ModelInput, Row
from apportion.scoring.lanes import in_lanes
from apportion.scoring.scorer import Tally, check_inputs
from apportion.scoring.writer import Writer, text_key

__all__ = ["Archive", "TextSource"]

Job = tuple[ModelInput, int]
"""A prompt, and the number of a text to write after it."""


@dataclass(slots=True)
class Archive:
    """Texts of one model and one set of options; runs that continue from one another share it.

    Attributes:
        texts: texts by the key of their prompt, and by their number.
        uncounted: keys of prompts whose texts were written before the method ran, and count once it needs them.
    """

    texts: dict[str, dict[int, str]] = field(default_factory=dict)
    uncounted: set[str] = field(default_factory=set)

    def add(self, other: Archive) -> None:
        """Add the texts of another archive of the same model and options."""
        for key, some in other.texts.items():
            self.texts.setdefault(key, {}).update(some)

    def copy(self) -> Archive:
        """A copy to add to, without what another run has to count."""
        return Archive({key: dict(some) for key, some in self.texts.items()})


class TextSource:
    """Gives the texts after prompts. What the archive holds, or a plugin has looked up, is not asked for again.

    Args:
        writer: writes texts.
        archive: texts that are known; new ones are added.
        lookup: the hook ``apportion_lookup_texts``, called with ``session``, ``prompts`` and ``samples``.
        keep: the hook ``apportion_text_written``, called with ``session``, ``prompt``, ``sample`` and ``text``.
        report: receives progress events.
        tally: counts to update.
    """

    def __init__(
        self,
        writer: Writer,
        archive: Archive,
        *,
        lookup: Callable[..., Sequence[Sequence[Sequence[str | None]]]],
        keep: Callable[..., object],
        report: Report,
        tally: Tally,
    ) -> None:
        self.writer, self.session, self.archive = writer, writer.session, archive
        self._lookup, self._keep = lookup, keep
        self._notify, self._tally = report, tally
        self._keys: dict[ModelInput, str] = {}

    def written(self, inputs: Sequence[ModelInput], samples: Sequence[int]) -> list[tuple[str, ...]]:
        """The texts of these numbers after each input, counted as evaluations.

        Raises:
            InputError: an input leaves no room for a text, or has a token id outside the vocabulary.
            CapabilityError: the session does not accept the media of an input.
            ServerError: a server does not answer. What was written up to then is kept.
        """
        jobs = self._unknown(inputs, samples)
        keys = {self._key(item) for item in inputs}
        owed = keys & self.archive.uncounted
        self.archive.uncounted -= owed
        left = dict.fromkeys(owed, 0)
        for item, _ in jobs:
            left[self._key(item)] = left.get(self._key(item), 0) + 1
        self._tally.cached += len(keys) - len(left)
        before, total = self._tally.evaluations, len(left)
        self._report(sum(not count for count in left.values()), total, before)
        for item, _ in self._texts(jobs):
            left[self._key(item)] -= 1
            self._report(sum(not count for count in left.values()), total, before)
        return self._known(inputs, samples)

    def uncounted(self, prompt: ModelInput, samples: Sequence[int]) -> tuple[str, ...]:
        """The texts of these numbers after a prompt, which count only once ``written`` needs texts of this prompt."""
        jobs = self._unknown([prompt], samples)
        for _ in self._texts(jobs):
            self.archive.uncounted.add(self._key(prompt))
        return self._known([prompt], samples)[0]

    def check(self, inputs: Sequence[ModelInput]) -> None:
        """Reject inputs after which no text can be written.

        Raises:
            InputError, CapabilityError: as ``written``.
        """
        # Room for at least one token.
        check_inputs(self.session, inputs, [Row(item.ids, (0,), item.media) for item in inputs])
        check_prompt = getattr(self.session, "check_prompt", None)
        if callable(check_prompt):
            for item in inputs:
                check_prompt(item)

    def _unknown(self, inputs: Sequence[ModelInput], samples: Sequence[int]) -> list[Job]:
        """The texts that have to be written; prompts that begin alike are neighbours, for engines that keep those."""
        self.check(inputs)
        self._look_up([item for item in inputs if not self._knows(item, samples)], samples)
        jobs = [(item, i) for item in inputs for i in samples if not self._knows(item, [i])]
        return sorted(jobs, key=lambda job: (job[0].media, job[0].ids, job[1]))

    def _known(self, inputs: Sequence[ModelInput], samples: Sequence[int]) -> list[tuple[str, ...]]:
        known = self.archive.texts
        return [tuple(known[self._key(item)][i] for i in samples) for item in inputs]

    def _key(self, item: ModelInput) -> str:
        """The key of a prompt, computed once: each of its texts is asked for by it."""
        found = self._keys.get(item)
        if found is None:
            found = self._keys[item] = text_key(item)
        return found

    def _knows(self, item: ModelInput, samples: Sequence[int]) -> bool:
        return set(samples) <= self.archive.texts.get(self._key(item), {}).keys()

    def _look_up(self, prompts: Sequence[ModelInput], samples: Sequence[int]) -> None:
        if not prompts:
            return
        for found in self._lookup(session=self.session, prompts=prompts, samples=samples):
            if len(found) != len(prompts) or any(len(some) != len(samples) for some in found):
                raise PluginError(
                    f"A plugin's apportion_lookup_texts must return {counted(len(samples), 'text')}, or None in place "
                    f"of one, for each of {counted(len(prompts), 'prompt')}; it returned {shown(found)}."
                )
            for item, some in zip(prompts, found, strict=True):
                known = self.archive.texts.setdefault(self._key(item), {})
                for sample, text in zip(samples, some, strict=True):
                    if text is not None:
                        known.setdefault(sample, text)

    def _texts(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Write texts and keep each as soon as it is there; yields the jobs that are done."""
        read = self._read()
        for (item, sample), text in self._in_turn(jobs) if self.session.layout.lanes == 1 else self._at_once(jobs):
            self.archive.texts.setdefault(self._key(item), {})[sample] = text
            self._keep(session=self.session, prompt=item, sample=sample, text=text)
            now = self._read()
            self._tally.forwarded_tokens += len(item.ids) + self._length(text) if read is None else (now or 0) - read
            read = now
            yield item, sample

    def _in_turn(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
        return ((job, self.writer(*job)) for job in jobs)

    def _at_once(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
        """Write texts in lanes. After an error, those under way come first, because they have been paid for."""
        queue, failures = iter(jobs), list[BaseException]()

        def take() -> Job | None:
            return None if failures else next(queue, None)

        ended: Iterator[tuple[Job, Future[str]]] = in_lanes(self.session, take, lambda job: self.writer(*job))
        for job, future in ended:
            error = future.exception()
            if error is None:
                yield job, future.result()
            else:
                failures.append(error)
        if failures:
            raise failures[0]

    def _read(self) -> int | None:
        """Number of tokens that a server has read and written so far, if it counts them."""
        found: int | None = getattr(self.session, "tokens_read", None)
        return found

    def _length(self, text: str) -> int:
        """Number of tokens of a text, as the session's tokenizer cuts it."""
        return len(self.session.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else 0

    def _report(self, done: int, total: int, before: int) -> None:
        self._tally.evaluations = before + done
        self._notify(ProgressEvent("score", done, total, before + done))

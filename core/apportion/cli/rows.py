"""The rows of a run, and the counts of those that are done or failed."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apportion.cli.items import Item
from apportion.cli.listing import print_facts
from apportion.cli.wording import in_shell_words, written_targets
from apportion.errors import InputError, ResultError
from apportion.results.run_folder import FAILED, OK, ResultsFolder

if TYPE_CHECKING:
    from apportion.explainer import Explainer
    from apportion.protocols.executor import Executor
    from apportion.results.attribution import Attribution

__all__ = ["Rows", "Summary"]


@dataclass(slots=True)
class Summary:
    """Counts of a run: its rows, and its cost without that of earlier runs."""

    out: str
    rows: int
    done: int = 0
    failed: int = 0
    done_before: int = 0
    failed_before: int = 0
    evaluations: int = 0
    cached: int = 0
    forwarded_tokens: int = 0
    seconds: float = 0.0
    written_targets: int = 0
    cut_off_targets: int = 0

    @property
    def ended(self) -> int:
        """Rows that are in the folder, done or failed."""
        return self.done + self.failed + self.done_before + self.failed_before

    def show(self) -> None:
        """Print it as a table."""
        rate = f" ({self.forwarded_tokens / self.seconds:,.0f}/s)" if self.forwarded_tokens else ""
        facts = [
            ("rows", f"{self.rows:,}"),
            ("done", f"{self.done:,}" + (f", and {self.done_before:,} before" if self.done_before else "")),
            ("failed", f"{self.failed:,}" + (f", and {self.failed_before:,} before" if self.failed_before else "")),
            *self._targets(),
            ("evaluations", f"{self.evaluations:,}" + (f", and {self.cached:,} from the cache" if self.cached else "")),
            ("tokens", f"{self.forwarded_tokens:,}{rate}"),
            ("time", f"{self.seconds:,.1f} s"),
            ("results", self.out),
        ]
        print_facts(facts)

    def _targets(self) -> list[tuple[str, str]]:
        told = written_targets(self.written_targets, self.cut_off_targets)
        return [("targets", told)] if self.written_targets else []


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one run, each written and counted as it ends.

    Attributes:
        folder: holds the results.
        summary: counts them.
    """

    folder: ResultsFolder
    summary: Summary

    def attribute(
        self,
        explainer: Explainer,
        items: Sequence[Item],
        *,
        at_once: int,
        executor: Executor | None = None,
        **shared: Any,
    ) -> None:
        """Attribute rows together.

        Args:
            explainer: attributes them.
            items: the rows; those with a fault fail.
            at_once: the most rows under way at a time.
            executor: attributes them in other processes.
            shared: arguments of ``attribute`` for rows that do not have their own.
        """
        good = [item for item in items if item.fault is None]
        for item in items:
            if item.fault is not None:
                place = "" if item.id == item.record.place else f"{item.record.place}: "
                self._fail(item, InputError(f"{place}{item.fault}"))
        started = time.perf_counter()

        def finished(number: int, outcome: Attribution | Exception) -> None:
            self.summary.seconds = round(time.perf_counter() - started, 3)
            if isinstance(outcome, Exception):
                self._fail(good[number], outcome)
            else:
                self._finish(good[number], outcome)

        calls = [item.arguments for item in good]
        results = explainer.attribute_many(
            calls, at_once=at_once, on_error="return", on_finish=finished, executor=executor, **shared
        )
        with contextlib.closing(results):  # type: ignore[type-var]
            for _ in results:
                pass

    def _finish(self, item: Item, result: Attribution) -> None:
        try:
            self.folder.add({**_facts(item), "status": OK, "result": result.to_dict()})
        except ResultError as error:
            self._fail(item, error)
            return
        self.summary.done += 1
        self.summary.written_targets += result.provenance.target_end is not None
        self.summary.cut_off_targets += result.provenance.target_end == "limit"
        self.summary.evaluations += result.provenance.evaluations
        self.summary.cached += result.provenance.cached
        self.summary.forwarded_tokens += result.provenance.forwarded_tokens

    def _fail(self, item: Item, error: Exception) -> None:
        fault = {"type": type(error).__name__, "message": str(error)}
        self.folder.add({**_facts(item), "status": FAILED, "error": fault})
        self.summary.failed += 1
        row = item.id if item.id == item.record.place else f"row {item.id}"
        print(f"{row} failed: {in_shell_words(' '.join(str(error).split()))}", file=sys.stderr)  # noqa: T201


def _facts(item: Item) -> Mapping[str, Any]:
    return {"id": item.id, "row": item.record.number, "hash": item.hash}

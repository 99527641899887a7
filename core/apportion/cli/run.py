"""``apportion run``: every row of a dataset, into a folder that a later run goes on from."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from apportion.cli import exits, run_flags
from apportion.cli.attribute import attribute
from apportion.cli.items import Columns, Item, read_items
from apportion.cli.job import Job, job_without_prompt, prompt_flags
from apportion.cli.listing import console, print_json
from apportion.errors import InputError, listing
from apportion.results.provenance import versions
from apportion.results.run_folder import FAILED, OK, ResultsFolder

if TYPE_CHECKING:
    from apportion.explainer import Explainer
    from apportion.results.attribution import Attribution

__all__ = ["EXAMPLES", "run"]

EXAMPLES = r"""
Examples:

apportion run prompts.jsonl --out results --method kernel_shap --budget 200

apportion run people.csv --out results --template "{name} lives in {city}. {name} likes" \
  --baseline name=Sarah --baseline city=Seattle --target " golf"
"""

ELSEWHERE = ("prompt", "prompt_file", "chat", "save", "plot", "view", "view_option", "dry_run", "cache")
"""Flags of ``attribute`` that are about one prompt or one result."""

NOT_ASKED = frozenset(
    {*ELSEWHERE, "model", "device", "memory_budget", "no_share_prefixes", "as_json", "run_log", "no_progress"}
)
"""What may differ between two runs into one folder; the model goes by its fingerprint, and prompts by their hashes."""


@dataclass(slots=True)
class _Summary:
    """What came of a run. All counts are of rows, until the costs of this run."""

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

    def show(self) -> None:
        """Print it as a table."""
        rate = f" ({self.forwarded_tokens / self.seconds:,.0f}/s)" if self.forwarded_tokens else ""
        facts = [
            ("rows", f"{self.rows:,}"),
            ("done", f"{self.done:,}" + (f", and {self.done_before:,} before" if self.done_before else "")),
            ("failed", f"{self.failed:,}" + (f", and {self.failed_before:,} before" if self.failed_before else "")),
            ("evaluations", f"{self.evaluations:,}" + (f", and {self.cached:,} recalled" if self.cached else "")),
            ("tokens", f"{self.forwarded_tokens:,}{rate}"),
            ("time", f"{self.seconds:,.1f} s"),
            ("results", self.out),
        ]
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, text in facts:
            table.add_row(Text(name, style="bold"), Text(text))
        console().print(table)


def run(
    dataset: run_flags.Dataset,
    out: run_flags.Out,
    prompt_column: run_flags.PromptColumn = "prompt",
    target_column: run_flags.TargetColumn = "target",
    id_column: run_flags.IdColumn = "id",
    skip_errors: run_flags.SkipErrors = False,
    at_once: run_flags.AtOnce = 8,
    restart: run_flags.Restart = False,
    retry_failed: run_flags.RetryFailed = False,
    cache: run_flags.RunCache = False,
    **asked: Any,
) -> None:
    """Attribute every row of a dataset, as `apportion attribute` does one prompt.

    Columns: the prompt, or with --template a column for each slot; if they are there target, contrast, seed and id,
    which go before the flags. Results are written as they finish. The same command again goes on where the first one
    stopped, however it stopped.
    """
    t = {**_defaults(), **asked}
    job = job_without_prompt(t, [dataset])
    items, unused = read_items(dataset, prompt_flags(t), Columns(prompt_column, target_column, id_column))
    _check_rows(dataset, items, skip_errors=skip_errors)
    if unused:
        print(f"columns that are not used: {listing(unused)}", file=sys.stderr)  # noqa: T201
    folder = ResultsFolder(out)
    with folder.locked():
        if restart:
            folder.clear()
        manifest = folder.manifest()
        ended = folder.ended()
        arguments = _arguments(t)
        if manifest is not None:
            _check_arguments(out, manifest["arguments"], arguments, len(ended))
            _check_same_rows(out, items, ended)
        elif ended:
            raise InputError(f"{out} holds results and no run.json that says of what. {_ways_out(len(ended))}")
        hashes = {item.id: item.hash for item in items}
        # Failed rows may have been mended or taken out.
        before = {
            row_id: line
            for row_id, line in ended.items()
            if line["status"] == OK or (not retry_failed and hashes.get(row_id) == line["hash"])
        }
        left = [item for item in items if item.id not in before]
        statuses = [line["status"] for line in before.values()]
        summary = _Summary(str(out), len(items), done_before=statuses.count(OK), failed_before=statuses.count(FAILED))
        if not left and manifest is not None and manifest["model"] != job.explainer["model"]:
            with job.opened() as explainer:  # another name may be the same model
                _check_model(folder, manifest, explainer)
        if left:
            job = replace(job, explainer={**job.explainer, "cache": cache or folder.evaluations})
            about = {"dataset": str(dataset), "rows": len(items), "arguments": arguments}
            with contextlib.redirect_stdout(sys.stderr), _interruptible(folder, summary):
                _attribute(job, left, folder, summary, manifest, about, at_once)
    print_json(asdict(summary)) if t["as_json"] else summary.show()
    if summary.failed or summary.failed_before:
        raise typer.Exit(exits.FAILED)


def _attribute(
    job: Job,
    items: Sequence[Item],
    folder: ResultsFolder,
    summary: _Summary,
    manifest: Mapping[str, Any] | None,
    about: Mapping[str, Any],
    at_once: int,
) -> None:
    """Attribute what is left, and write down each row as it ends."""
    good = [item for item in items if item.fault is None]
    with job.opened() as explainer:
        _check_model(folder, manifest, explainer)
        if manifest is None:
            folder.begin({**about, **_of_model(explainer)})
        for item in items:
            if item.fault is not None:
                _add_failure(folder, item, InputError(f"{item.record.place}: {item.fault}"), summary)
        started = time.perf_counter()

        def finished(number: int, outcome: Attribution | Exception) -> None:
            summary.seconds = round(time.perf_counter() - started, 3)
            if isinstance(outcome, Exception):
                _add_failure(folder, good[number], outcome, summary)
            else:
                _add_result(folder, good[number], outcome, summary)

        calls = [item.arguments for item in good]
        shared = {**job.call, **job.method_options}
        results = explainer.attribute_many(calls, at_once=at_once, on_error="return", on_finish=finished, **shared)
        with contextlib.closing(results):  # type: ignore[type-var]
            for _ in results:
                pass


def _add_result(folder: ResultsFolder, item: Item, result: Attribution, summary: _Summary) -> None:
    from apportion.errors import ResultError

    try:
        folder.add({**_facts(item), "status": OK, "result": result.to_dict()})
    except ResultError as error:
        _add_failure(folder, item, error, summary)
        return
    summary.done += 1
    summary.evaluations += result.provenance.evaluations
    summary.cached += result.provenance.cached
    summary.forwarded_tokens += result.provenance.forwarded_tokens


def _add_failure(folder: ResultsFolder, item: Item, error: Exception, summary: _Summary) -> None:
    folder.add({**_facts(item), "status": FAILED, "error": {"type": type(error).__name__, "message": str(error)}})
    summary.failed += 1
    print(f"row {item.id} failed: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201


def _facts(item: Item) -> dict[str, Any]:
    return {"id": item.id, "row": item.record.number, "hash": item.hash}


@contextlib.contextmanager
def _interruptible(folder: ResultsFolder, summary: _Summary) -> Iterator[None]:
    """After Ctrl-C, say what is there and how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        ended = summary.done + summary.failed + summary.done_before + summary.failed_before
        raise exits.InterruptedDeliveryError(
            f"{ended} of {summary.rows} rows are in {folder.path}; the same command goes on from there"
        ) from interrupt


def _check_rows(path: Path, items: Sequence[Item], *, skip_errors: bool) -> None:
    """Refuse rows that cannot be attributed, before a model is loaded."""
    bad = [item for item in items if item.fault is not None]
    if not bad or (skip_errors and len(bad) < len(items)):
        return
    first, rest = bad[0], len(bad) - 1
    more = f" So cannot {rest} more: {listing(item.record.place for item in bad[1:])}." if rest else ""
    hint = "" if len(bad) == len(items) else " Mend the file, or add --skip-errors to write such rows down as failed."
    raise InputError(
        f"{path}, {first.record.place}, cannot be attributed: {(first.fault or '').rstrip('.')}.{more}{hint}"
    )


def _arguments(t: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the results, by the names of the flags; files by what is in them."""
    found = {name: value for name, value in t.items() if name not in NOT_ASKED and value not in (None, [], ())}
    if t["document"]:
        digests = {str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] for path in t["document"]}
        found["document"] = [f"{path} ({digest})" for path, digest in digests.items()]
    return found


def _check_arguments(out: Path, before: Mapping[str, Any], now: Mapping[str, Any], rows: int) -> None:
    """Refuse to mix results of other arguments.

    Raises:
        InputError: with what differs.
    """
    defaults = {name: value for name, value in _defaults().items() if value not in (None, [], ())}
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        changes = [
            f"--{name.replace('_', '-')} was {_shown(before, defaults, name)} and is {_shown(now, defaults, name)}"
            for name in sorted(names)
        ]
        raise InputError(f"{out} was begun with other arguments: {'; '.join(changes)}. {_ways_out(rows)}")


def _shown(arguments: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> str:
    return repr(arguments.get(name, defaults.get(name))) if name in arguments or name in defaults else "not given"


def _ways_out(rows: int) -> str:
    there = f"deletes the {rows} row{'' if rows == 1 else 's'} there and begins anew" if rows else "begins anew"
    return f"Go on with what it was begun with, name another --out, or add --restart, which {there}."


def _check_same_rows(out: Path, items: Sequence[Item], ended: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a dataset whose finished rows are not what they were; rows may be added, and failed ones mended.

    Raises:
        InputError: with the first that differs.
    """
    known = {item.id: item for item in items}
    for row_id, line in ended.items():
        if line["status"] == FAILED:
            continue
        if row_id not in known:
            raise InputError(
                f"{out} has a row {row_id!r}, which the dataset does not have (any more). {_ways_out(len(ended))}"
            )
        if line["hash"] != known[row_id].hash:
            raise InputError(
                f"The row {row_id!r} ({known[row_id].record.place}) is in {out} and has changed since. "
                f"{_ways_out(len(ended))}"
            )


def _of_model(explainer: Explainer) -> dict[str, Any]:
    return {
        "model": explainer.model.name,
        "fingerprint": explainer.model.fingerprint,
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _check_model(folder: ResultsFolder, manifest: Mapping[str, Any] | None, explainer: Explainer) -> None:
    """Refuse to mix results of two models.

    Raises:
        InputError: the folder was begun with another one.
    """
    if manifest is not None and manifest["fingerprint"] != explainer.model.fingerprint:
        raise InputError(
            f"{folder.path} was begun with another model, {manifest['model']} (fingerprint {manifest['fingerprint']}); "
            f"this is {explainer.model.name} ({explainer.model.fingerprint}). {_ways_out(len(folder.ended()))}"
        )


def _defaults() -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(attribute).parameters.items()}


def _signature() -> inspect.Signature:
    """The flags above, and those of ``attribute``."""
    taken = inspect.signature(attribute, eval_str=True).parameters.values()
    own = [p for p in inspect.signature(run, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    return inspect.Signature([*own, *(p for p in taken if p.name not in ELSEWHERE)])


# One list of flags serves both commands.
run.__signature__ = _signature()  # type: ignore[attr-defined]

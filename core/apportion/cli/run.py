"""``apportion run``: every row of a dataset, into a folder that a later run can resume from."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli.earlier import EarlierRuns, decisive_arguments
from apportion.cli.exits import FAILED, InterruptedDeliveryError
from apportion.cli.items import Columns, Item, read_items
from apportion.cli.job import Job, job_without_prompt
from apportion.cli.listing import print_json
from apportion.cli.options.command import Without
from apportion.cli.options.dataset import DatasetOptions
from apportion.cli.options.method import MethodOptions
from apportion.cli.options.model import ModelOptions
from apportion.cli.options.output import OutputOptions
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.options.target import TargetOptions
from apportion.cli.rows import Rows, Summary
from apportion.errors import InputError, counted, listing
from apportion.results import run_folder
from apportion.results.provenance import versions
from apportion.results.run_folder import ResultsFolder

if TYPE_CHECKING:
    from apportion.explainer import Explainer

__all__ = ["EXAMPLES", "run"]

EXAMPLES = r"""
Examples:

apportion run prompts.jsonl --out results --method kernel_shap --budget 200

apportion run people.csv --out results --template "{name} lives in {city}. {name} likes" \
  --baseline name=Sarah --baseline city=Seattle --target " golf"
"""


def run(
    data: DatasetOptions,
    model: Annotated[ModelOptions, Without("cache")],
    prompt: Annotated[PromptOptions, Without("prompt", "prompt_file", "chat")],
    target: TargetOptions,
    method: MethodOptions,
    output: Annotated[OutputOptions, Without("save", "plot", "view", "view_option")],
) -> None:
    """Attribute every row of a dataset, as `apportion attribute` does for one prompt.

    Columns: the prompt, or with --template one for each slot; and optionally target, contrast, seed and id, which take
    precedence over the flags. Results are written as they finish. Repeat the command to resume it, however it stopped.
    """
    job = job_without_prompt(model, target, method, output, inputs=[data.dataset])
    columns = Columns(data.prompt_column, data.target_column, data.id_column)
    items, unused = read_items(data.dataset, prompt, columns)
    _check_items(data.dataset, items, skip_errors=data.skip_errors)
    if unused:
        print(f"unused columns: {listing(unused)}", file=sys.stderr)  # noqa: T201
    folder = ResultsFolder(data.out)
    with folder.locked():
        if data.restart:
            folder.clear()
        earlier = EarlierRuns.of(folder)
        arguments = decisive_arguments(model, prompt, target, method)
        earlier.check(arguments, items)
        about = {"dataset": str(data.dataset), "rows": len(items), "arguments": arguments}
        summary = _resume(job, items, folder, earlier, data, about)
    print_json(asdict(summary)) if output.as_json else summary.show()
    if summary.failed or summary.failed_before:
        raise typer.Exit(FAILED)


def _resume(
    job: Job,
    items: Sequence[Item],
    folder: ResultsFolder,
    earlier: EarlierRuns,
    data: DatasetOptions,
    about: Mapping[str, Any],
) -> Summary:
    """Attribute the rows that earlier runs did not finish."""
    before = earlier.rows_to_skip(items, retry_failed=data.retry_failed)
    statuses = [line["status"] for line in before.values()]
    done, failed = statuses.count(run_folder.OK), statuses.count(run_folder.FAILED)
    summary = Summary(str(data.out), len(items), done_before=done, failed_before=failed)
    left = [item for item in items if item.id not in before]
    if left:
        job = job.with_cache(data.cache or folder.evaluations)
        with contextlib.redirect_stdout(sys.stderr), _interruptible(folder, summary), job.opened() as explainer:
            earlier.check_model(explainer)
            if earlier.manifest is None:
                folder.begin({**about, **_of_model(explainer)})
            shared = {**job.call, **job.method_options}
            Rows(folder, summary).attribute(explainer, left, at_once=data.at_once, **shared)
    elif earlier.manifest is not None and earlier.manifest["model"] != job.explainer["model"]:
        with job.opened() as explainer:  # the same model may have another name
            earlier.check_model(explainer)
    return summary


def _check_items(path: Path, items: Sequence[Item], *, skip_errors: bool) -> None:
    """Refuse rows that cannot be attributed, before a model is loaded."""
    bad = [item for item in items if item.fault is not None]
    if not bad or (skip_errors and len(bad) < len(items)):
        return
    first, rest = bad[0], len(bad) - 1
    more = f" Nor can {rest} more: {listing(item.record.place for item in bad[1:])}." if rest else ""
    hint = "" if len(bad) == len(items) else " Fix the file, or add --skip-errors to record such rows as failed."
    raise InputError(
        f"{path}, {first.record.place}, cannot be attributed: {(first.fault or '').rstrip('.')}.{more}{hint}"
    )


@contextlib.contextmanager
def _interruptible(folder: ResultsFolder, summary: Summary) -> Iterator[None]:
    """After Ctrl-C, say what was written and how to resume."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise InterruptedDeliveryError(
            f"{folder.path} has {summary.ended} of {counted(summary.rows, 'row')}; repeat the command to resume it"
        ) from interrupt


def _of_model(explainer: Explainer) -> dict[str, Any]:
    return {
        "model": explainer.session.info.model,
        "fingerprint": explainer.session.fingerprint(),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }

"""``apportion run``: every row of a dataset, into a folder that a later run can resume from."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli.costs import CostOptions, deliver_cost
from apportion.cli.dataset_cost import NOTHING, DatasetCost, cost_of_rows, rows_to_estimate
from apportion.cli.earlier import EarlierRuns, decisive_arguments, likeness_facts
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
from apportion.cli.row_checks import check_items, check_tokens, with_contrast_faults, with_faults
from apportion.cli.rows import Rows, Summary
from apportion.cli.shards import Shard, collect_shards, executor_of, with_shards
from apportion.cli.texts import reads_texts
from apportion.cli.ticking import ticking
from apportion.errors import InputError, ServerError, counted, listing
from apportion.results import run_folder
from apportion.results.provenance import versions
from apportion.results.run_folder import ResultsFolder

if TYPE_CHECKING:
    from apportion.explainer import Explainer
    from apportion.protocols.executor import Executor

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
    cost: CostOptions,
) -> None:
    """Attribute every row of a dataset, as `apportion attribute` does for one prompt.

    Columns: the prompt, or with --template one for each slot; and optionally target, contrast, seed and id, which take
    precedence over the flags. Results are written as they finish. Repeat the command to resume it, however it stopped.
    With --dry-run, only report the cost of the rows that are left; of many rows, a few are estimated.
    """
    _check_parent(data.out)
    job = job_without_prompt(model, target, method, output, inputs=[data.dataset])
    columns = Columns(data.prompt_column, data.target_column, data.id_column, image=data.image_column)
    writes = job.call["generate"] is not None and reads_texts(target.target_fn)
    items, unused = read_items(data.dataset, prompt, columns, writes=writes)
    if unused:
        print(f"unused columns: {listing(unused)}", file=sys.stderr)  # noqa: T201
    if not data.skip_errors and any(item.fault is not None for item in items):
        items = with_contrast_faults(items, job.call)  # so that one message has all faults
    check_items(data.dataset, items, skip_errors=data.skip_errors)
    folder = ResultsFolder(data.out)
    part = None if data.shard is None else Shard.of(data.shard)
    if part is not None:
        items, folder = part.items(items), ResultsFolder(data.out / part.folder, data.out)
    executor = executor_of(data.engine, data.workers)
    arguments = decisive_arguments(model, prompt, target, method)
    if cost.dry_run:
        expected = _expected(job, items, folder, data, arguments)
        deliver_cost(expected, output.as_json, cached=data.cache or folder.evaluations.exists())
        return
    with folder.locked():
        if data.restart:
            folder.clear()
        folder.repair()
        collect_shards(folder, arguments, items)
        earlier = EarlierRuns.of(folder)
        earlier.check(arguments, items)
        about = {"dataset": str(data.dataset), "rows": len(items), "arguments": arguments}
        summary = _resume(job, items, folder, earlier, data, about, executor)
    print_json(asdict(summary)) if output.as_json else summary.show()
    if summary.failed or summary.failed_before:
        raise typer.Exit(FAILED)


def _check_parent(out: Path) -> None:
    """Refuse a folder in a folder that does not exist, which is more often a typo than meant."""
    parents = out.absolute().parents
    if not parents[0].exists() and next(path for path in parents if path.exists()).is_dir():
        raise InputError(f"Cannot create {out}: there is no folder {out.parent}. Create it, or name another.")


def _resume(
    job: Job,
    items: Sequence[Item],
    folder: ResultsFolder,
    earlier: EarlierRuns,
    data: DatasetOptions,
    about: Mapping[str, Any],
    executor: Executor | None,
) -> Summary:
    """Attribute the rows that earlier runs did not finish."""
    before = earlier.rows_to_skip(items, retry_failed=data.retry_failed)
    statuses = [line["status"] for line in before.values()]
    done, failed = statuses.count(run_folder.OK), statuses.count(run_folder.FAILED)
    summary = Summary(str(folder.path), len(items), done_before=done, failed_before=failed)
    left = [item for item in items if item.id not in before]
    if left:
        job = job.with_cache(data.cache or folder.evaluations)
        with (
            contextlib.redirect_stdout(sys.stderr),
            _interruptible(folder, summary),
            _opened(job, left, data) as opened,
        ):
            explainer, left = opened
            earlier.check_model(explainer)
            if earlier.manifest is None:
                folder.begin({**about, **_of_model(explainer)})
            shared = {**job.call, **job.method_options}
            Rows(folder, summary).attribute(explainer, left, at_once=data.at_once, executor=executor, **shared)
    elif earlier.manifest is not None and earlier.manifest["model"] != job.explainer["model"]:
        with job.opened() as explainer:  # the same model may have another name
            earlier.check_model(explainer)
    return summary


def _expected(
    job: Job, items: Sequence[Item], folder: ResultsFolder, data: DatasetOptions, arguments: Mapping[str, Any]
) -> DatasetCost:
    """The cost of the rows that are left. Nothing is written, not even the folder."""
    earlier = EarlierRuns(folder.path, None, {}) if data.restart else EarlierRuns.of(folder)
    earlier.check(arguments, items)
    if not data.restart:
        earlier = with_shards(folder, earlier)
    before = earlier.rows_to_skip(items, retry_failed=data.retry_failed)
    left = [item for item in items if item.id not in before]
    if not left:
        return NOTHING
    with contextlib.redirect_stdout(sys.stderr), _opened(job, left, data, quiet=True) as (explainer, left):
        faults = {item.id: item.fault for item in left if item.fault is not None}
        left = sorted(
            (item for item in left if item.fault is None), key=lambda item: len(str(item.arguments["prompt"]))
        )
        if not left:
            return replace(NOTHING, failing=faults)
        steps = len(rows_to_estimate(left))
        earlier.check_model(explainer)
        with ticking("estimating", "row", steps, job.explainer["progress"]) as tick:
            cost = cost_of_rows(explainer, left, {**job.call, **job.method_options}, tick)
        return replace(cost, failing={**faults, **cost.failing})


@contextlib.contextmanager
def _opened(
    job: Job, items: Sequence[Item], data: DatasetOptions, *, quiet: bool = False
) -> Iterator[tuple[Explainer, list[Item]]]:
    """The explainer, and the rows with all faults that can be found before one of them is attributed.

    Raises:
        InputError: there is such a fault, and it is not to be recorded instead.
    """
    checked = list(items)

    def refuse(found: Sequence[Item]) -> None:
        checked[:] = found
        if not data.skip_errors:  # else they are recorded, even if no others are left
            check_items(data.dataset, checked, skip_errors=False)

    def check_before() -> None:
        refuse(with_contrast_faults(checked, job.call))

    with job.opened(check=check_before, quiet=quiet) as explainer:
        check_tokens(explainer, job.call)
        refuse(with_faults(checked, job.call, partial(check_tokens, explainer)))
        yield explainer, checked


@contextlib.contextmanager
def _interruptible(folder: ResultsFolder, summary: Summary) -> Iterator[None]:
    """After Ctrl-C, or when a server is gone, say what was written and how to resume."""
    try:
        yield
    except ServerError as error:
        raise ServerError(
            f"{error} {folder.path} has {summary.ended} of {counted(summary.rows, 'row')}, and every score that was "
            "answered. Repeat the command to resume it."
        ) from None
    except KeyboardInterrupt as interrupt:
        raise InterruptedDeliveryError(
            f"{folder.path} has {summary.ended} of {counted(summary.rows, 'row')}; repeat the command to resume it"
        ) from interrupt


def _of_model(explainer: Explainer) -> dict[str, Any]:
    return {
        "model": explainer.session.info.model,
        "fingerprint": explainer.session.fingerprint(),
        **likeness_facts(explainer.session),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }

"""``apportion evaluate``: the faithfulness of an attribution, or of several methods side by side."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli.job import Job, job_with_prompt, job_without_prompt
from apportion.cli.listing import print_json
from apportion.cli.options.command import Without
from apportion.cli.options.method import MethodOptions
from apportion.cli.options.model import ModelOptions
from apportion.cli.options.output import OUTPUT, OutputOptions
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.options.target import TargetOptions
from apportion.cli.outputs import DOTS_PER_INCH, PICTURES, check_writable, write_file
from apportion.cli.parse import json_pairs, json_pairs_by_owner, usage_error
from apportion.cli.saved import SAVED, RowOptions, folder_of, saved_result
from apportion.errors import listing
from apportion.hooks.manager import installed_plugins
from apportion.options import check_options
from apportion.protocols.metrics import RANDOM_ORDERS

if TYPE_CHECKING:
    from apportion.results.attribution import Attribution
    from apportion.results.evaluation import Evaluation

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = r"""
Examples:

apportion evaluate "Dave is a lawyer. He likes" --target " golf" --method kernel_shap \
  --compare ablation --metric deletion --metric lds --plot curves.png

apportion evaluate --result results --row 3
"""

METRICS = "Metrics"


@dataclass(frozen=True, slots=True)
class MetricOptions:
    """The metrics, and the methods to compare."""

    metric: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="NAME",
            rich_help_panel=METRICS,
            show_default="all of them",
            help="Metric to compute; see `apportion metrics`. Repeatable.",
        ),
    ] = ()
    metric_option: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="METRIC.NAME=VALUE",
            rich_help_panel=METRICS,
            help="Option of a metric: lds.masks=128. Repeatable; see `apportion metrics show NAME`.",
        ),
    ] = ()
    compare: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="METHOD",
            rich_help_panel=METRICS,
            help="Another method to evaluate beside the first, with its default options. Repeatable.",
        ),
    ] = ()
    random_orders: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=METRICS,
            help="Random orders of the features whose deletion and insertion curves are measured as a yardstick; an "
            "even number, and 0 for none.",
        ),
    ] = RANDOM_ORDERS
    curves: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="Draw the deletion and insertion curves to a .png, .svg, .pdf or .eps file.",
        ),
    ] = None
    look: Annotated[
        tuple[str, ...],
        typer.Option(
            "--view-option",
            metavar="KEY=VALUE",
            rich_help_panel=OUTPUT,
            help="Option of the curves: title, labels, size or dpi, as in 'size=[6.5, 4]'. Repeatable.",
        ),
    ] = ()


@dataclass(frozen=True, slots=True)
class SavedOptions:
    """A saved result, instead of a prompt."""

    result: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            rich_help_panel=SAVED,
            help="Judge a saved result instead: a file, or with --row a row of a folder that `apportion run` wrote. "
            "Needs the same model.",
        ),
    ] = None


def evaluate(
    model: ModelOptions,
    prompt: PromptOptions,
    target: TargetOptions,
    method: MethodOptions,
    output: Annotated[OutputOptions, Without("save", "plot", "view", "view_option")],
    metrics: MetricOptions,
    saved: SavedOptions,
    row: RowOptions,
) -> None:
    """Attribute a prompt as `apportion attribute` does, and measure the faithfulness of the result.

    With --result, measure that of a saved result.
    """
    options = _checked(metrics)
    look = _checked_look(metrics)
    if saved.result is None:
        if row.row is not None:
            usage_error("--row", "this is a row of a folder; name the folder with --result.")
        job = job_with_prompt(model, prompt, target, method, output)
        evaluated = partial(_evaluations, job, metrics, options)
    else:
        _check_alone(prompt, target, method, metrics)
        job = _with_folder_cache(job_without_prompt(model, target, method, output, inputs=[saved.result]), saved.result)
        result = saved_result(saved.result, row.row)
        evaluated = partial(_evaluation, job, result, metrics, options)
    with contextlib.redirect_stdout(sys.stderr):
        found = evaluated()
    _deliver(found, as_json=output.as_json, curves=metrics.curves, look=look)


def _check_alone(prompt: PromptOptions, target: TargetOptions, method: MethodOptions, metrics: MetricOptions) -> None:
    """Refuse what a saved result holds already."""
    given = {
        "PROMPT and its options": prompt != PromptOptions(),
        "options of the target": target != TargetOptions(),
        "options of the method": replace(method, seed=0) != MethodOptions(),
        "--compare": bool(metrics.compare),
    }
    for what, is_given in given.items():
        if is_given:
            usage_error(
                "--result", f"{what} cannot be given too, because the saved result holds its prompt, target and method."
            )


def _with_folder_cache(job: Job, path: Path) -> Job:
    """The job with the scores of a run's folder, unless another cache is named."""
    folder = folder_of(path)
    return job if folder is None or job.explainer["cache"] else job.with_cache(folder.evaluations)


def _evaluation(
    job: Job, result: Attribution, metrics: MetricOptions, options: Mapping[str, Mapping[str, Any]]
) -> list[Evaluation]:
    """The evaluation of a saved result."""
    with job.opened(check=lambda: None) as explainer:
        return [explainer.evaluate(result, **_judged(job, metrics, options))]


def _checked(metrics: MetricOptions) -> dict[str, dict[str, Any]]:
    """Refuse what cannot work before a model is loaded.

    Returns:
        The options of each metric.
    """
    plugins = installed_plugins()
    for name in metrics.metric:
        plugins["metrics"].get(name)
    for name in metrics.compare:
        plugins["methods"].get(name)
    options = json_pairs_by_owner("--metric-option", metrics.metric_option, "lds.masks=128")
    if metrics.random_orders % 2:
        usage_error("--random-orders", f"{metrics.random_orders} is odd, and each order is followed by its reverse.")
    if metrics.curves is not None:
        if metrics.curves.suffix.lower() not in PICTURES:
            usage_error("--plot", f"the suffix of {metrics.curves} is not one of {listing(PICTURES)}.")
        check_writable(metrics.curves)
    return options


def _checked_look(metrics: MetricOptions) -> dict[str, Any]:
    """Options of the plot, whose names are checked before a model is loaded."""
    look = json_pairs("--view-option", metrics.look, "size=[6.5, 4]")
    if look and metrics.curves is None:
        usage_error("--view-option", f"{metrics.look[0]!r} is for the curves; add --plot FILE.")
    registry = installed_plugins()["metrics"]
    made = {name: registry.get(name).make() for name in registry.names()}
    plots = {name: metric.plot for name, metric in made.items() if hasattr(metric, "plot")}
    able = [name for name in metrics.metric or plots if name in plots]
    if able:
        check_options(f"plot of {able[0]!r}", plots[able[0]], look)
    elif metrics.curves is not None:
        can = listing(sorted(plots))
        usage_error("--plot", f"{listing(metrics.metric)} has no curves to draw. Metrics that have: {can}.")
    return look


def _evaluations(job: Job, metrics: MetricOptions, options: Mapping[str, Mapping[str, Any]]) -> list[Evaluation]:
    """The attribution that was asked for, then those of the other methods on the same prompt and target."""
    judged = _judged(job, metrics, options)
    with job.opened() as explainer:
        first = explainer.attribute(**job.call, **job.method_options)
        # A target that was generated is not generated again, but the texts that are compared with it are written.
        generate = job.call["generate"] if first.provenance.samples else None
        target = job.call["target"] or explainer.target_of(first)
        others = [
            explainer.attribute(**{**job.call, "method": method, "target": target, "generate": generate})
            for method in metrics.compare
        ]
        if not others:
            return [explainer.evaluate(first, **judged)]
        return list(explainer.evaluate([first, *others], **judged).evaluations)


def _judged(job: Job, metrics: MetricOptions, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Arguments of ``Explainer.evaluate``, but for the result."""
    named = list(metrics.metric) or None
    return {
        "metrics": named,
        "seed": job.call["seed"],
        "options": options,
        "random_orders": metrics.random_orders,
    }


def _deliver(found: list[Evaluation], *, as_json: bool, curves: Path | None, look: Mapping[str, Any]) -> None:
    from apportion.results.evaluation import compare

    if as_json:
        print_json([one.to_dict() for one in found] if len(found) > 1 else found[0].to_dict())
    else:
        compare(found).show()
    if curves is not None:
        content = io.BytesIO()
        dpi = "figure" if "dpi" in look else DOTS_PER_INCH
        compare(found).plot(**look).savefig(content, format=curves.suffix.lower()[1:], dpi=dpi)
        write_file(curves, content.getvalue())

"""``apportion evaluate``: the faithfulness of an attribution, or of several methods side by side."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.cli.job import Job, job_with_prompt
from apportion.cli.listing import print_json
from apportion.cli.options.command import Without
from apportion.cli.options.method import MethodOptions
from apportion.cli.options.model import ModelOptions
from apportion.cli.options.output import OUTPUT, OutputOptions
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.options.target import TargetOptions
from apportion.cli.outputs import DOTS_PER_INCH, PICTURES, check_writable, write_file
from apportion.cli.parse import json_pairs, usage_error
from apportion.errors import listing
from apportion.hooks.manager import installed_plugins
from apportion.options import check_options
from apportion.protocols.metrics import RANDOM_ORDERS

if TYPE_CHECKING:
    from apportion.results.evaluation import Evaluation

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = r"""
Example:

apportion evaluate "Dave is a lawyer. He likes" --target " golf" --method kernel_shap \
  --compare ablation --metric deletion --metric lds --plot curves.png
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


def evaluate(
    model: ModelOptions,
    prompt: PromptOptions,
    target: TargetOptions,
    method: MethodOptions,
    output: Annotated[OutputOptions, Without("save", "plot", "view", "view_option")],
    metrics: MetricOptions,
) -> None:
    """Attribute a prompt as `apportion attribute` does, and measure the faithfulness of the result."""
    job = job_with_prompt(model, prompt, target, method, output)
    options = _checked(metrics)
    look = _checked_look(metrics)
    with contextlib.redirect_stdout(sys.stderr):
        found = _evaluations(job, metrics, options)
    _deliver(found, as_json=output.as_json, curves=metrics.curves, look=look)


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
    options = _by_metric(metrics.metric_option)
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
    for name in metrics.metric or registry.names():
        plot = getattr(registry.get(name).make(), "plot", None)
        if plot is not None:
            check_options(f"plot of {name!r}", plot, look)
            break
    return look


def _evaluations(job: Job, metrics: MetricOptions, options: Mapping[str, Mapping[str, Any]]) -> list[Evaluation]:
    """The attribution that was asked for, then those of the other methods on the same prompt and target."""
    names = list(metrics.metric) or None
    with job.opened() as explainer:
        first = explainer.attribute(**job.call, **job.method_options)
        seed = job.call["seed"]
        judged = {"seed": seed, "options": options, "random_orders": metrics.random_orders}
        found = [explainer.evaluate(first, names, **judged)]
        # A target that was generated is not generated again.
        target = job.call["target"] or explainer.target_of(first)
        for method in metrics.compare:
            result = explainer.attribute(**{**job.call, "method": method, "target": target, "generate": None})
            found.append(explainer.evaluate(result, names, **judged))
    return found


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


def _by_metric(typed: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in json_pairs("--metric-option", typed, "lds.masks=128").items():
        metric, _, option = name.partition(".")
        if not option:
            usage_error("--metric-option", f"{name!r} does not name an option; write METRIC.NAME=VALUE: lds.masks=128.")
        found.setdefault(metric, {})[option] = value
    return found

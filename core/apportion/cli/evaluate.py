"""``apportion evaluate``: how faithful an attribution is, or which method's is more so."""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.cli import metric_flags
from apportion.cli.attribute import attribute
from apportion.cli.job import Job, job_of
from apportion.cli.listing import print_json
from apportion.cli.outputs import DOTS_PER_INCH, PICTURES, check_writable, write_file
from apportion.cli.parse import json_pairs, usage_error
from apportion.errors import listing
from apportion.hooks.manager import installed_plugins

if TYPE_CHECKING:
    from apportion.results.evaluation import Evaluation

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = r"""
Example:

apportion evaluate "Dave is a lawyer. He likes" --target " golf" --method kernel_shap \
  --compare ablation --metric deletion --metric lds --plot curves.png
"""

ELSEWHERE = ("save", "plot", "view", "view_option", "dry_run")
"""Flags of ``attribute`` that say where an attribution goes."""


def evaluate(
    metric: metric_flags.Metric = None,
    metric_option: metric_flags.MetricOption = None,
    compare: metric_flags.Compare = None,
    curves: metric_flags.Curves = None,
    **run: Any,
) -> None:
    """Attribute as `apportion attribute` does, and judge the result by faithfulness metrics."""
    job = job_of({**_defaults(), **run})
    registry = installed_plugins()["metrics"]
    for name in metric or ():
        registry.get(name)
    for name in compare or ():
        installed_plugins()["methods"].get(name)
    options = _by_metric(metric_option or ())
    if curves is not None:
        if curves.suffix.lower() not in PICTURES:
            usage_error("--plot", f"the suffix of {curves} is none of {listing(PICTURES)}.")
        check_writable(curves)
    with contextlib.redirect_stdout(sys.stderr):
        found = _evaluations(job, metric, options, compare or ())
    _deliver(found, as_json=run["as_json"], curves=curves)


def _evaluations(
    job: Job, metrics: list[str] | None, options: Mapping[str, Mapping[str, Any]], others: list[str] | tuple[()]
) -> list[Evaluation]:
    """The attribution that was asked for, then those of the other methods on the same prompt and target."""
    with job.opened() as explainer:
        first = explainer.attribute(**job.call, **job.method_options)
        seed = job.call["seed"]
        found = [explainer.evaluate(first, metrics, seed=seed, options=options)]
        # A target that was generated is not generated again.
        target = job.call["target"] or explainer.target_of(first)
        for method in others:
            result = explainer.attribute(**{**job.call, "method": method, "target": target, "generate": None})
            found.append(explainer.evaluate(result, metrics, seed=seed, options=options))
    return found


def _deliver(found: list[Evaluation], *, as_json: bool, curves: Path | None) -> None:
    from apportion.results.evaluation import compare

    if as_json:
        print_json([one.to_dict() for one in found] if len(found) > 1 else found[0].to_dict())
    else:
        compare(found).show()
    if curves is not None:
        content = io.BytesIO()
        compare(found).plot().savefig(content, format=curves.suffix.lower()[1:], dpi=DOTS_PER_INCH)
        write_file(curves, content.getvalue())


def _by_metric(typed: list[str] | tuple[()]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, value in json_pairs("--metric-option", typed, "lds.masks=128").items():
        metric, _, option = name.partition(".")
        if not option:
            usage_error("--metric-option", f"{name!r} names no option; write METRIC.NAME=VALUE, as in lds.masks=128.")
        found.setdefault(metric, {})[option] = value
    return found


def _defaults() -> dict[str, Any]:
    return {name: parameter.default for name, parameter in inspect.signature(attribute).parameters.items()}


def _signature() -> inspect.Signature:
    """The flags of ``attribute`` and those above."""
    taken = inspect.signature(attribute, eval_str=True).parameters.values()
    own = [p for p in inspect.signature(evaluate, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    return inspect.Signature([*(p for p in taken if p.name not in ELSEWHERE), *own])


# One list of flags serves both commands.
evaluate.__signature__ = _signature()  # type: ignore[attr-defined]

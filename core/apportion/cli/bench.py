"""``apportion bench``: the speed of this machine and model, beside the least that the arithmetic takes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from apportion.cli.exits import FAILED
from apportion.cli.listing import console, print_json, print_table, to_json
from apportion.cli.loading import loading
from apportion.cli.options.command import NO_VALUE, Without
from apportion.cli.options.model import ModelOptions
from apportion.cli.outputs import check_writable, write_file
from apportion.cli.parse import usage_error
from apportion.errors import ApportionError
from apportion.hooks.manager import installed_plugins

if TYPE_CHECKING:
    from apportion.benchmarking.measuring import Measured
    from apportion.explainer import Explainer

__all__ = ["EXAMPLES", "bench"]

EXAMPLES = r"""
Examples:

apportion bench

apportion bench --model ./my-model --backend torch --device cuda --case document --json
"""

DEFAULT_CASES = ("ablation", "shapley")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The cases to time, and the output of the numbers."""

    case: Annotated[
        tuple[str, ...],
        typer.Option(
            metavar="NAME",
            show_default=" and ".join(DEFAULT_CASES),
            help="Case to time: ablation, shapley, few_shot, kernel_shap or document (the last two take minutes on a "
            "small CPU). Repeatable.",
        ),
    ] = ()
    repeats: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Timed runs of each case, after a first one that is not timed."),
    ] = 3
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", metavar=NO_VALUE, help="Print the measurements as JSON on stdout, and nothing else there."
        ),
    ] = False
    save: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the same JSON to this file.")] = None
    no_progress: Annotated[
        bool,
        typer.Option(
            "--no-progress",
            metavar=NO_VALUE,
            help="Hide the progress bar, which is only ever shown in a terminal, on stderr.",
        ),
    ] = False


def bench(model: Annotated[ModelOptions, Without("cache")], options: BenchOptions) -> None:
    """Time this machine and model, and compare with the time that the arithmetic alone would take.

    The floor is the time of a program that reads every distinct beginning of the prompts once and does nothing but
    multiply matrices, at the rate that is measured alongside each case.
    """
    cases = options.case or DEFAULT_CASES
    _check(model.backend, cases, options.save)
    settings = model.settings()
    with contextlib.redirect_stdout(sys.stderr):
        facts, found, failed = _measure(settings, cases, options.repeats, shown=not options.no_progress)
    report = {**facts, "cases": [one.to_dict() for one in found], "failed": failed}
    if options.save is not None:
        write_file(options.save, to_json(report).encode())
    if options.as_json:
        print_json(report)
    elif found:
        _show(facts, found)
    for name, why in failed.items():
        print(f"case {name} failed: {' '.join(why.split())}", file=sys.stderr)  # noqa: T201
    if failed:
        raise typer.Exit(FAILED)


def _check(backend: str, cases: Sequence[str], save: Path | None) -> None:
    """Refuse what cannot work before a model is loaded."""
    from apportion.benchmarking.works import work

    for name in cases:
        work(name)
    if len(set(cases)) < len(cases):
        usage_error("--case", f"a case is named twice in {', '.join(cases)}; name each one once.")
    if backend != "auto":
        installed_plugins()["backends"].get(backend)
    if save is not None:
        if save.suffix.lower() != ".json":
            usage_error("--save", f"the numbers are saved as JSON; {save} should end in .json.")
        check_writable(save)


def _measure(
    settings: Mapping[str, Any], cases: Sequence[str], repeats: int, *, shown: bool
) -> tuple[dict[str, Any], list[Measured], dict[str, str]]:
    """The setup, the numbers of each case, and the errors of those that failed."""
    from apportion.benchmarking.watcher import Watcher

    watcher = Watcher()
    with loading(settings["model"], shown=shown):
        # Imported here: this takes seconds.
        from apportion.benchmarking.measuring import Stopwatch
        from apportion.benchmarking.works import work
        from apportion.explainer import Explainer

        explainer = Explainer(**settings, plugins=[watcher], progress=False)
    found: list[Measured] = []
    failed: dict[str, str] = {}
    with explainer, _ticking(len(cases) * (1 + repeats), shown=shown) as tick:
        for name in cases:
            try:
                stopwatch = Stopwatch(explainer, watcher, work(name), tick=partial(tick, name))
                stopwatch.time(repeats)
                found.append(stopwatch.measured())
            except ApportionError as error:
                failed[name] = str(error)
        return _facts(explainer), found, failed


def _facts(explainer: Explainer) -> dict[str, Any]:
    import torch

    from apportion.results.provenance import versions

    info = explainer.session.info
    return {
        "model": info.model,
        "backend": info.backend,
        "device": info.device,
        "dtype": info.dtype,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


@contextmanager
def _ticking(total: int, *, shown: bool) -> Iterator[Callable[[str], None]]:
    """A bar on stderr that advances after each run and disappears at the end."""
    stderr = Console(stderr=True)
    if not (shown and stderr.is_terminal):
        yield lambda _: None
        return
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"))
    # A bar that redraws itself during a timed run would take part of a core: it is drawn after each run.
    bar = Progress(*columns, console=stderr, transient=True, auto_refresh=False)
    task = bar.add_task("bench", total=total)

    def tick(name: str) -> None:
        bar.update(task, advance=1, description=name, refresh=True)

    with bar:
        bar.refresh()
        yield tick


def _show(facts: Mapping[str, Any], found: Sequence[Measured]) -> None:
    where = f"{facts['device']}, {facts['threads']} threads" if facts["device"] == "cpu" else facts["device"]
    out = console()
    out.print(f"{facts['model']} in {facts['dtype']}, backend {facts['backend']} on {where}", markup=False)
    header = ("case", "evaluations", "median", "evaluations/s", "tokens/s", "read", "least", "GFLOP/s", "of floor", "")
    print_table(header, [_row(one) for one in found])
    out.print(
        "read: tokens that the model read, padding included. least: nodes of the prefix tree of all prompts. GFLOP/s: "
        "matrix products in the model's dtype, measured alongside the runs. of floor: time that the least arithmetic "
        "takes at that rate, as a percentage of the median."
    )


def _row(one: Measured) -> tuple[str, ...]:
    return (
        one.case,
        f"{one.evaluations:,}",
        f"{one.median:.3g} s",
        f"{one.evaluations / one.median:.3g}",
        f"{one.forwarded_tokens / one.median:,.0f}",
        f"{one.forwarded_tokens:,}",
        f"{one.least_tokens:,}",
        f"{one.gemm_rate / 1e9:,.0f}",
        f"{one.share_of_floor:.0%}",
        one.summary,
    )

"""``apportion export``: a model as files that a backend runs without PyTorch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from apportion.cli.listing import console, print_json
from apportion.cli.options.command import NO_VALUE
from apportion.cli.options.progress import ProgressOptions
from apportion.protocols.progress import ALWAYS, NEVER

if TYPE_CHECKING:
    from apportion.protocols.exports import Export

__all__ = ["EXAMPLES", "export"]

EXAMPLES = r"""
Examples:

apportion export smollm2 --out smollm2-onnx

apportion export ./my-model --out my-model-int8 --precision int8

apportion attribute "Dave is a lawyer from Palm Coast. He likes to play" --model smollm2-onnx
"""


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """The model and the folder."""

    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="'smollm2', a Hugging Face Hub id, a folder or a .gguf file."),
    ]
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="Folder to write; it must be empty, or not exist yet.", show_default=False),
    ]


@dataclass(frozen=True, slots=True)
class ExportOptions(ProgressOptions):
    """The numbers that the graph computes with, and the tokenizer and backend."""

    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Numbers that the graph computes with: fp32, or int8, which is smaller and faster, and whose fidelity "
            "is measured on built-in prompts.",
        ),
    ] = "fp32"
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="the model's own",
            help="Hub id or folder of the tokenizer, where it does not come with the model.",
        ),
    ] = None
    backend: Annotated[str, typer.Option(metavar="NAME", help="Backend that the export is for.")] = "onnxruntime"
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            metavar=NO_VALUE,
            help="Export a model whose files lack some of its weights, and fill these with random numbers.",
        ),
    ] = False
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar=NO_VALUE, help="Print a summary as JSON on stdout, and nothing else there."),
    ] = False


def export(model: ExportedModel, options: ExportOptions) -> None:
    """Export a model to a folder that scores without PyTorch's code of the model.

    The graph is compared with PyTorch before the command succeeds. To use it, give the folder as --model.
    """
    # Imported here: torch takes seconds, and is not needed to refuse a command line.
    from apportion.models.export import export as run_export

    with _steps(options.shown) as say:
        done = run_export(
            model.model,
            model.out,
            precision=options.precision,
            tokenizer=options.tokenizer,
            backend=options.backend,
            allow_missing=options.allow_missing,
            say=say,
        )
    if options.as_json:
        print_json(
            {
                "folder": str(done.folder),
                "precision": done.precision,
                "bytes": done.bytes,
                "largest_difference": done.largest_difference,
                "compared_rows": done.compared_rows,
                "fidelity": dict(done.fidelity),
            }
        )
    else:
        _show(done)


def _show(done: Export) -> None:
    out = console()
    out.print(f"{done.folder}/  {done.precision}, {done.bytes / 1e6:,.0f} MB", markup=False)
    out.print(
        f"Largest difference from PyTorch: {done.largest_difference:.1e} nats, over {done.compared_rows} rows.",
        markup=False,
    )
    if done.fidelity:
        out.print(
            "Attributions of {prompts:.0f} built-in prompts, beside fp32: rank correlation {spearman:.3f} (least "
            "{spearman_least:.3f}), same top 3 in {same_top_3:.0%}.".format(**done.fidelity),
            markup=False,
        )
    out.print(f'\nNext:\n  apportion attribute "…" --model {done.folder}', markup=False)


@contextmanager
def _steps(progress: str) -> Iterator[Callable[[str], None]]:
    """The step at hand and the time since the beginning, on stderr; elsewhere than in a terminal, lines."""
    stderr = Console(stderr=True)
    if progress == NEVER or not (stderr.is_terminal or progress == ALWAYS):
        yield lambda _: None
        return
    begun = time.monotonic()
    if not stderr.is_terminal:
        yield lambda step: print(f"{time.monotonic() - begun:5.0f} s  {step}", file=sys.stderr, flush=True)  # noqa: T201
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=stderr, transient=True, refresh_per_second=4)
    task = bar.add_task("Start", total=None)
    with bar:
        yield lambda step: bar.update(task, description=step)

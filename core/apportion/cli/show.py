"""``apportion show``: a saved result, again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apportion.cli.options.command import Without
from apportion.cli.options.output import OutputOptions
from apportion.cli.outputs import check_outputs

__all__ = ["show"]


@dataclass(frozen=True, slots=True)
class SavedOptions:
    """The result to show."""

    result: Annotated[Path, typer.Argument(help="File written by `--save` or `Attribution.save`.", metavar="RESULT")]


def show(
    saved: SavedOptions, output: Annotated[OutputOptions, Without("save", "run_log", "progress", "no_progress")]
) -> None:
    """Show a saved result in the terminal, as JSON or as a picture.

    Example: apportion show dave.json --plot dave.png --view bar
    """
    outputs = check_outputs(output, inputs=[saved.result])
    outputs.check_view()
    # Imported here: numpy is not needed to refuse a command line.
    from apportion.results.attribution import Attribution

    outputs.deliver(Attribution.load(saved.result))

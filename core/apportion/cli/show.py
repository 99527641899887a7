"""``apportion show``: saved results, again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from apportion.cli.context import saved_reliance, show_reliance
from apportion.cli.listing import print_json
from apportion.cli.options.command import Without
from apportion.cli.options.output import OutputOptions
from apportion.cli.outputs import check_outputs
from apportion.cli.parse import usage_error
from apportion.cli.saved import RowOptions, folder_of, saved_result

__all__ = ["EXAMPLES", "show"]

EXAMPLES = r"""
Examples:

apportion show dave.json --plot dave.png --view bar

apportion show results

apportion show results --row 3
"""


@dataclass(frozen=True, slots=True)
class SavedOptions:
    """The result to show."""

    result: Annotated[
        Path,
        typer.Argument(
            help="File written by `--save` or `Attribution.save`, or folder written by `apportion run`.",
            metavar="RESULT",
        ),
    ]


def show(
    saved: SavedOptions,
    row: RowOptions,
    output: Annotated[OutputOptions, Without("save", "run_log", "progress", "no_progress")],
) -> None:
    """Show a saved result in the terminal, as JSON or as a picture; or list the rows of a folder of results."""
    outputs = check_outputs(output, inputs=[saved.result])
    reliance = saved_reliance(saved.result) if saved.result.is_file() and row.row is None else None
    if reliance is not None:
        if output.view is not None or (output.plot is not None and output.plot.suffix.lower() != ".html"):
            flag = "--plot" if output.view is None else "--view"
            usage_error(flag, f"{saved.result} is a context reliance, which has a terminal view and an .html page.")
        show_reliance(reliance, html=output.plot, as_json=output.as_json)
        return
    outputs.check_view()
    folder = None if row.row is not None else folder_of(saved.result)
    if folder is None:
        result = saved_result(saved.result, row.row)
        if result.pictures:
            outputs = check_outputs(output, inputs=[saved.result], pictures=True)
        outputs.deliver(result)
        return
    for flag, given in (("--plot", output.plot), ("--view", output.view)):
        if given is not None:
            usage_error(flag, f"{saved.result} holds a result for each row; name the one to draw, such as --row 1.")
    # Imported here: numpy is not needed to refuse a command line.
    from apportion.cli.overview import overview_of

    found = overview_of(folder)
    print_json(found.to_dict()) if output.as_json else found.show()

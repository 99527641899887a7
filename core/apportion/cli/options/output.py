"""Files and views of a result, the run log, and progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from apportion.cli.options.command import NO_VALUE, in_panel
from apportion.cli.options.progress import OUTPUT, ProgressOptions

__all__ = ["OUTPUT", "OutputOptions"]

_option = in_panel(OUTPUT)


@dataclass(frozen=True, slots=True)
class OutputOptions(ProgressOptions):
    """Files and views of a result, the run log, and progress."""

    as_json: Annotated[
        bool,
        _option("--json", metavar=NO_VALUE, help="Print the result as JSON on stdout, and nothing else there."),
    ] = False
    save: Annotated[
        Path | None,
        _option(
            metavar="FILE.json",
            help="Save the result to a file that `apportion show` reads. An existing file is replaced.",
        ),
    ] = None
    plot: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Draw the result to a .png, .svg, .pdf, .eps or .html file. An existing file is replaced.",
        ),
    ] = None
    view: Annotated[
        str | None,
        _option(
            metavar="NAME",
            show_default="terminal; with --plot: heatmap, image with --image, or html for .html",
            help="View to draw with --plot, or to print without it: heatmap, bar, html, terminal, or one that a plugin "
            "adds.",
        ),
    ] = None
    view_option: Annotated[
        tuple[str, ...],
        _option(metavar="KEY=VALUE", help="Option of the view. Values are read as JSON or else as text. Repeatable."),
    ] = ()
    run_log: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Append one line of JSON about the run to this file: its request, its cost and its outcome.",
        ),
    ] = None

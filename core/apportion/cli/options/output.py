"""Where results go, and what is seen on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from apportion.cli.options.command import NO_VALUE, in_panel

__all__ = ["OUTPUT", "OutputOptions"]

OUTPUT = "Output"
"""The panel."""

_option = in_panel(OUTPUT)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Where a result goes, and what is written beside it."""

    as_json: Annotated[
        bool,
        _option("--json", metavar=NO_VALUE, help="Print the result as JSON on stdout, and nothing else there."),
    ] = False
    save: Annotated[
        Path | None,
        _option(
            metavar="FILE.json",
            help="Save the result; `apportion show` reads it. A file that is there is replaced.",
        ),
    ] = None
    plot: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Draw the result into a .png, .svg, .pdf or .html file. A file that is there is replaced.",
        ),
    ] = None
    view: Annotated[
        str | None,
        _option(
            metavar="NAME",
            show_default="terminal; with --plot: heatmap, or html for .html",
            help="What --plot draws, or what is printed without it: heatmap, bar, html, terminal, or what a plugin "
            "adds.",
        ),
    ] = None
    view_option: Annotated[
        tuple[str, ...],
        _option(metavar="KEY=VALUE", help="An option of the view. Values are JSON or else text. Repeatable."),
    ] = ()
    run_log: Annotated[
        Path | None,
        _option(
            metavar="FILE",
            help="Append one line of JSON about the run to this file: what was asked, what it cost, how it ended.",
        ),
    ] = None
    no_progress: Annotated[
        bool,
        _option(
            "--no-progress",
            metavar=NO_VALUE,
            help="No progress bar on stderr; it shows in terminals only anyway.",
        ),
    ] = False

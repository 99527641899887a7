"""``apportion show``: a saved result again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.cli import flags
from apportion.cli.outputs import OutputFlags, check_outputs

__all__ = ["show"]


def show(
    result: Annotated[Path, typer.Argument(help="A file that `--save` or `Attribution.save` wrote.", metavar="RESULT")],
    as_json: flags.AsJson = False,
    plot: flags.Plot = None,
    view: flags.View = None,
    view_option: flags.ViewOption = None,
) -> None:
    """Show a saved result in the terminal, as JSON or as a picture.

    Example: apportion show dave.json --plot dave.png --view bar
    """
    output = OutputFlags(as_json, save=None, plot=plot, view=view, view_options=view_option or ())
    outputs = check_outputs(output, inputs=[result])
    outputs.check_view()
    # Imported here: numpy is not needed to refuse a command line.
    from apportion.results.attribution import Attribution

    outputs.deliver(Attribution.load(result))

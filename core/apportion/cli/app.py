"""The app: all commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from apportion._version import __version__
from apportion.cli import attribute, backends, bench, context, evaluate, export, new, plugins, run, show
from apportion.cli.kinds import KINDS, kind_app
from apportion.cli.options.command import add_command

__all__ = ["app"]

RUN = "Attribution"
INSTALLED = "What is installed"
EXTEND = "Extending"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"apportion {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Which parts of the prompt made the language model say that?

    Try: apportion attribute "Dave is a lawyer from Palm Coast. He likes to play"
    """


add_command(app, attribute.attribute, panel=RUN, epilog=attribute.EXAMPLES)
add_command(app, run.run, panel=RUN, epilog=run.EXAMPLES)
add_command(app, evaluate.evaluate, panel=RUN, epilog=evaluate.EXAMPLES)
add_command(app, context.context, panel=RUN, epilog=context.EXAMPLES)
add_command(app, show.show, panel=RUN, epilog=show.EXAMPLES)
add_command(app, export.export, panel=RUN, epilog=export.EXAMPLES)
add_command(app, bench.bench, panel=INSTALLED, epilog=bench.EXAMPLES)
for command in KINDS:
    app.add_typer(kind_app(command), name=command, rich_help_panel=INSTALLED)
app.add_typer(backends.app, name="backends", rich_help_panel=INSTALLED)
app.add_typer(plugins.app, name="plugins", rich_help_panel=INSTALLED)
app.add_typer(new.app, name="new", rich_help_panel=EXTEND)

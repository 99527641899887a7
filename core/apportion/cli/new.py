"""``apportion new plugin``: a distribution to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apportion.cli.listing import console
from apportion.errors import PluginError
from apportion.hooks.manager import load_plugins
from apportion.scaffold.distribution import KINDS, Distribution, write_distribution

__all__ = ["app"]

app = typer.Typer(help="Start something new: `plugin NAME`.", rich_markup_mode="rich", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Start something new: `plugin NAME`."""


@app.command("plugin")
def new_plugin(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name such as random-subset; users will type random_subset.")
    ],
    kind: Annotated[
        str, typer.Option("--kind", "-k", metavar="KIND", help=f"Kind of extension: {', '.join(KINDS)}.")
    ] = "method",
    into: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to make its folder in.")] = Path(),
) -> None:
    """Write a working plugin: one module, its tests and its README. The tests pass at once.

    Example: apportion new plugin random-subset --kind method
    """
    distribution = Distribution.of(name, kind)
    _refuse_taken(distribution)
    folder = write_distribution(distribution, into)
    out = console()
    out.print(f"{folder}/")
    for path in distribution.files():
        out.print(f"  {path}", markup=False)
    out.print("\nNext:", markup=False)
    for line in (f"cd {folder}", 'pip install -e ".[test]"', "pytest", f"apportion plugins check {distribution.name}"):
        out.print(f"  {line}", markup=False)


def _refuse_taken(distribution: Distribution) -> None:
    """Refuse a name that is taken, which would not load.

    Raises:
        PluginError: the name is taken; the message names the owner.
    """
    registry = load_plugins()[f"{distribution.extension}s"]
    if distribution.name in registry:
        owner = registry.get(distribution.name).plugin
        raise PluginError(
            f"There is a {distribution.extension} called {distribution.name!r} already, of the plugin {owner!r}; "
            "choose another name."
        )

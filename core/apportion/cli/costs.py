"""The cost of a command, instead of its results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import typer

from apportion.cli.listing import print_json
from apportion.cli.options.command import NO_VALUE
from apportion.cli.options.method import METHOD

__all__ = ["CostOptions", "deliver_cost"]


@dataclass(frozen=True, slots=True)
class CostOptions:
    """The cost of a run, instead of the run."""

    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            metavar=NO_VALUE,
            rich_help_panel=METHOD,
            help="Only report what the run would cost: evaluations, tokens, time and memory.",
        ),
    ] = False


class _Cost(Protocol):
    def to_dict(self) -> Mapping[str, Any]: ...

    def show(self) -> None: ...


def deliver_cost(cost: _Cost, as_json: bool, *, cached: bool) -> None:
    """Print a cost on stdout, and on stderr that scores in a cache are not subtracted if there is one."""
    print_json(cost.to_dict()) if as_json else cost.show()
    if cached:
        print("scores in the cache are not subtracted: the run costs less where it finds them", file=sys.stderr)  # noqa: T201

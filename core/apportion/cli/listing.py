"""Lists on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

__all__ = [
    "Catalogue",
    "JsonFlag",
    "console",
    "print_facts",
    "print_json",
    "print_table",
    "stdout_is_unicode",
    "sub_app",
    "to_json",
]

JsonFlag = Annotated[bool, typer.Option("--json", metavar=" ", help="Print JSON on stdout, and nothing else there.")]

PIPED_WIDTH = 1000
"""Columns when stdout is not a terminal: lines are for grep and are not wrapped, unless they are sentences."""


class Catalogue(TyperGroup):
    """A group of commands whose default is ``list``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``list`` in front of words that neither name a command nor ask for help."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Say how to show what is named in place of a command."""
        if self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command: {args[0]!r}. To show what is called so: {ctx.command_path} show {args[0]}")
        return super().resolve_command(ctx, args)


def sub_app(help: str) -> typer.Typer:
    """A group of commands whose default is ``list``."""
    return typer.Typer(cls=Catalogue, help=help, rich_markup_mode="rich")


def console(*, folded: bool = False) -> Console:
    """A console on stdout.

    Args:
        folded: lines are as wide as a terminal in pipes too: ``COLUMNS``, or 80.
    """
    plain = Console(highlight=False)
    return plain if folded or plain.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, folded: bool = False) -> None:
    """Print a table without rules; the last column takes the remaining room.

    Args:
        columns: heads of the columns.
        rows: their cells.
        folded: see ``console``.
    """
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*[cell if isinstance(cell, Text) else Text(cell) for cell in row])
    for column in table.columns[:-1]:
        column.no_wrap = True
    console(folded=folded).print(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print labels, in bold, and what they stand for, a line for each."""
    out = console()
    for name, text in facts:
        out.print(Text.assemble((f"{name:<13}", "bold"), text))


def print_json(data: object) -> None:
    """Print JSON on stdout."""
    print(to_json(data, ascii_only=not stdout_is_unicode()))  # noqa: T201


def stdout_is_unicode() -> bool:
    """Tell whether stdout takes every character; where it does not, JSON is written in ASCII to stay valid."""
    return (sys.stdout.encoding or "").lower().startswith("utf")


def to_json(data: object, *, ascii_only: bool = False) -> str:
    """Format as JSON, as results are saved.

    Raises:
        TypeError, ValueError: JSON cannot hold a part of it.
    """
    return json.dumps(data, ensure_ascii=ascii_only, indent=1, allow_nan=False)

"""Commands made of functions that take groups of options.

A group is a frozen dataclass. Its fields are options: type, default and help stand together, and a tuple is an option
that may be repeated. A function that takes groups becomes a command with the options of all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

__all__ = ["NO_VALUE", "Without", "add_command", "in_panel"]

NO_VALUE = " "
"""Metavar of options without a value; typer would print their type."""


def in_panel(panel: str) -> Callable[..., Any]:
    """``typer.Option`` for the options in one panel of the help."""
    return partial(typer.Option, rich_help_panel=panel)


class Without:
    """Options of a group that a command does not have: ``Annotated[OutputOptions, Without("save", "plot")]``.

    The function gets the whole group all the same, with the defaults of those fields.

    Args:
        names: of the fields.
    """

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)


def add_command(app: typer.Typer, function: Callable[..., None], *, panel: str, epilog: str | None = None) -> None:
    """Make a function a command, under its own name and with its docstring as help.

    Args:
        app: gets the command.
        function: takes groups of options, and nothing else.
        panel: where the help of ``app`` lists the command.
        epilog: ends the help of the command.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: _Group.of(hints[name]) for name in inspect.signature(function).parameters}
    # Typer reads options off the signature of what it is to call; that of a dataclass is its fields.
    every_option = make_dataclass(
        function.__name__, [option for group in groups.values() for option in group.options()], kw_only=True
    )

    class Command(TyperCommand):
        """Hands what was typed to the function."""

        def invoke(self, ctx: Any) -> Any:
            typed = vars(super().invoke(ctx))
            return ctx.invoke(function, **{name: group.filled(typed) for name, group in groups.items()})

    app.command(function.__name__, cls=Command, help=inspect.getdoc(function), epilog=epilog, rich_help_panel=panel)(
        every_option
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """A group of options as one command has it."""

    made_by: Callable[..., Any]
    hints: Mapping[str, Any]
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, annotation: Any) -> _Group:
        group, *notes = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
        left_out = {name for note in notes if isinstance(note, Without) for name in note.names}
        defaults = {one.name: one.default for one in fields(group) if one.name not in left_out}
        if unknown := left_out - {one.name for one in fields(group)}:
            raise TypeError(f"{group.__name__} has no options {sorted(unknown)} that could be left out.")
        return cls(group, get_type_hints(group, include_extras=True), defaults)

    def options(self) -> Iterator[tuple[str, Any, Any]]:
        """The fields that typer reads; it knows an option that may be repeated as a list, and ``None`` as none."""
        for name, default in self.defaults.items():
            kind, *notes = get_args(self.hints[name])
            if get_origin(kind) is tuple:
                kind, default = list[get_args(kind)[0]], None  # type: ignore[misc]
            yield name, Annotated[kind, *notes], field(default=default)

    def filled(self, typed: Mapping[str, Any]) -> Any:
        """The group with what was typed; the rest has its defaults."""
        given = {name: typed[name] for name in self.defaults if typed[name] is not None}
        return self.made_by(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})

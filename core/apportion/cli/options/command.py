"""Commands made from functions that take groups of options.

A group is a frozen dataclass. Its fields are options: type, default and help stand together, and a tuple is an option
that may be repeated. A function that takes groups becomes a command with all their options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from apportion.cli.parse import number

__all__ = ["NO_VALUE", "Without", "add_command", "in_panel"]

NO_VALUE = " "
"""Metavar of options without a value, for which typer would print a type."""


def in_panel(panel: str) -> Callable[..., Any]:
    """``typer.Option`` for the options in one panel of the help."""
    return partial(typer.Option, rich_help_panel=panel)


class Without:
    """Options of a group that a command lacks: ``Annotated[OutputOptions, Without("save", "plot")]``.

    The function still gets the whole group, with the defaults of these fields.

    Args:
        names: names of the fields.
    """

    def __init__(self, *names: str) -> None:
        self.names = frozenset(names)


def add_command(app: typer.Typer, function: Callable[..., None], *, panel: str, epilog: str | None = None) -> None:
    """Turn a function into a command that has its name, and its docstring as help.

    Args:
        app: app that gets the command.
        function: function that takes groups of options and nothing else.
        panel: panel in the help of ``app`` that lists the command.
        epilog: end of the command's help.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = {name: _Group.of(hints[name]) for name in inspect.signature(function).parameters}
    # Typer takes options from the signature of a callable, and the signature of a dataclass is its fields.
    every_option = make_dataclass(
        function.__name__, [option for group in groups.values() for option in group.options()], kw_only=True
    )

    class Command(TyperCommand):
        """Hands the options to the function, in their groups."""

        def invoke(self, ctx: Any) -> Any:
            typed = vars(super().invoke(ctx))
            return ctx.invoke(function, **{name: group.filled(typed) for name, group in groups.items()})

    app.command(function.__name__, cls=Command, help=_paragraphs(function), epilog=epilog, rich_help_panel=panel)(
        every_option
    )


def _paragraphs(function: Callable[..., None]) -> str:
    """The docstring with each paragraph on one line, so that the help breaks lines where the terminal ends."""
    return "\n\n".join(" ".join(text.split()) for text in (inspect.getdoc(function) or "").split("\n\n"))


@dataclass(frozen=True, slots=True)
class _Group:
    """A group of options in one command."""

    group: type
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
        """Fields for typer, which knows repeatable options as lists, and their absence as ``None``.

        Numbers are texts for typer, and read by ``filled``: so their faults are told in the same words as all others.
        """
        for name, default in self.defaults.items():
            kind, *notes = get_args(self.hints[name])
            repeatable = get_origin(kind) is tuple
            if (numeric := _Number.of(name, kind, notes)) is not None:
                notes, kind = [numeric.as_text()], str if default not in (None, ()) else str | None
                default = default if default in (None, ()) else str(default)
            if repeatable:
                kind, default = list[str] if numeric else list[get_args(kind)[0]], None  # type: ignore[misc]
            yield name, Annotated[kind, *notes], field(default=default)

    def filled(self, typed: Mapping[str, Any]) -> Any:
        """Make the group from the values of a command line, with defaults for the rest."""
        given = {name: self._read(name, typed[name]) for name in self.defaults if typed[name] is not None}
        return self.group(**given)

    def _read(self, name: str, value: Any) -> Any:
        kind, *notes = get_args(self.hints[name])
        numeric = _Number.of(name, kind, notes)
        if isinstance(value, list | tuple):
            return tuple(value if numeric is None else map(numeric.read, value))
        return value if numeric is None else numeric.read(value)


@dataclass(frozen=True, slots=True)
class _Number:
    """An option whose values are numbers.

    Attributes:
        flag: its flag.
        kind: ``int`` or ``float``.
        note: typer's description of it.
    """

    flag: str
    kind: type[int] | type[float]
    note: Any

    @classmethod
    def of(cls, name: str, annotation: Any, notes: Sequence[Any]) -> _Number | None:
        kinds = [kind for kind in (annotation, *get_args(annotation)) if kind in (int, float)]
        return cls(f"--{name.replace('_', '-')}", kinds[0], notes[0]) if kinds and notes else None

    def as_text(self) -> Any:
        """The description of an option of texts that looks the same in the help."""
        note = copy(self.note)
        if note.min is not None:
            note.metavar, note.min = f"{note.metavar} [x>={note.min}]", None
        return note

    def read(self, value: Any) -> int | float:
        return number(self.flag, str(value), self.kind, self.note.min)

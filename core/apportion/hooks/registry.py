"""Registries of names and factories, one for each kind of extension."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from apportion.errors import InputError, PluginError, unknown_name
from apportion.options import check_options

__all__ = ["KINDS", "Entry", "Register", "Registry"]

KINDS = ("inputs", "samplers", "methods", "targets", "visualizers", "backends", "metrics")

LONGEST_NAME = 60

Factory = Callable[..., Any] | str
"""A callable that makes the object when called without arguments, or its path ``"module:name"``."""

Register = Callable[..., None]
"""``register(name, factory, *, summary)``, which is passed to registration hooks."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered name.

    Attributes:
        kind: name of the registry, such as ``"methods"``.
        name: the name that users type.
        factory: makes the object; a string is imported on first use.
        summary: one line for listings.
        plugin: name of the plugin that registered it.
    """

    kind: str
    name: str
    factory: Factory
    summary: str
    plugin: str

    def load(self) -> Callable[..., Any]:
        """Return the factory itself, imported if it was given as a string.

        Raises:
            PluginError: the factory cannot be imported; the message names plugin, kind and cause.
        """
        try:
            return _imported(self.factory) if isinstance(self.factory, str) else self.factory
        except (Exception, SystemExit) as error:
            raise self._fault("load", error) from error

    def make(self, **options: Any) -> Any:
        """Make a new object.

        Args:
            **options: keyword-only parameters of the factory.

        Raises:
            InputError: an option is unknown to the factory, or has a value that it rejects.
            PluginError: the factory failed; the message names plugin, kind and cause.
        """
        factory = self.load()
        if options:
            check_options(f"{self.kind[:-1]} {self.name!r}", factory, options)
        try:
            return factory(**options)
        except (Exception, SystemExit) as error:
            if options and isinstance(error, InputError):
                raise
            raise self._fault("make", error) from error

    def _fault(self, verb: str, error: BaseException) -> PluginError:
        return PluginError(
            f"The plugin {self.plugin!r} could not {verb} its {self.kind[:-1]} {self.name!r}: "
            f"{type(error).__name__}: {error}"
        )


class Registry:
    """The entries of one kind, by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._entries)

    def get(self, name: str) -> Entry:
        """Look up the entry of a name.

        Raises:
            UnknownNameError: the name is unknown; the message lists the known names, and suggests the closest.
        """
        if name not in self._entries:
            hint = "A plugin that fails to load registers nothing: see `apportion plugins list`."
            raise unknown_name(self.kind[:-1], name, self._entries, hint)
        return self._entries[name]

    def add(self, entry: Entry) -> None:
        """Add one entry.

        Raises:
            PluginError: the name is taken; the message names both owners.
        """
        owner = self._entries.get(entry.name)
        if owner is not None:
            raise PluginError(
                f"The {self.kind[:-1]} {entry.name!r} of the plugin {entry.plugin!r} is already registered by "
                f"{owner.plugin!r}; one of them has to take another name."
            )
        self._entries[entry.name] = entry


def checked_entry(kind: str, plugin: str, name: object, factory: object, summary: object) -> Entry:
    """Make an entry from the arguments that a plugin passed to ``register``.

    Raises:
        PluginError: the name cannot be typed, the factory cannot be called, or there is no summary.
    """
    if not isinstance(name, str) or not _can_be_typed(name):
        raise PluginError(
            f"{name!r:.80} cannot be a {kind[:-1]} name; use letters, digits, '_' and '-', {LONGEST_NAME} at most."
        )
    if name == "auto":
        raise PluginError(f"A {kind[:-1]} cannot be called 'auto', which is reserved for the automatic choice.")
    if not callable(factory) and not (isinstance(factory, str) and factory.count(":") == 1):
        raise PluginError(
            f"The factory of the {kind[:-1]} {name!r} must be callable, or a string 'module:name'; it is {factory!r}."
        )
    if not isinstance(summary, str) or not summary.strip():
        raise PluginError(f"The {kind[:-1]} {name!r} needs a summary, one line for listings.")
    return Entry(kind, name, factory, summary.strip(), plugin)


def _can_be_typed(name: str) -> bool:
    return name.replace("-", "_").isidentifier() and not name.startswith("-") and len(name) <= LONGEST_NAME


def _imported(path: str) -> Callable[..., Any]:
    module, name = path.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found

"""Registries of names and factories, one for each kind of extension."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from apportion.errors import InputError, PluginError, unknown_name
from apportion.options import check_options

__all__ = ["KINDS", "NOUNS", "REQUESTED", "Entry", "Register", "Registry", "checked_entry"]

NOUNS: Mapping[str, str] = {
    "inputs": "input",
    "samplers": "sampler",
    "methods": "method",
    "targets": "target function",
    "visualizers": "visualizer",
    "backends": "backend",
    "metrics": "metric",
    "segmenters": "segmenter",
    "fills": "fill",
}
"""The singular of each kind, for messages to plugin authors."""

KINDS = tuple(NOUNS)

REQUESTED: Mapping[str, str] = {**NOUNS, "visualizers": "view"}
"""The thing that users request by a name of each kind: a visualizer draws the view of the same name."""

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
            check_options(f"{NOUNS[self.kind]} {self.name!r}", factory, options)
        try:
            return factory(**options)
        except (Exception, SystemExit) as error:
            if options and isinstance(error, InputError):
                raise
            raise self._fault("make", error) from error

    def _fault(self, verb: str, error: BaseException) -> PluginError:
        return PluginError(
            f"The plugin {self.plugin!r} could not {verb} its {NOUNS[self.kind]} {self.name!r}: "
            f"{type(error).__name__}: {error}"
        )


class Registry:
    """The entries of one kind, by name.

    Args:
        kind: one of ``KINDS``.
        missing: returns a sentence about plugins that may have registered a name that is not found.
    """

    def __init__(self, kind: str, missing: Callable[[], str] = str) -> None:
        self.kind = kind
        self._missing = missing
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
            raise unknown_name(REQUESTED[self.kind], name, self._entries, self._missing())
        return self._entries[name]

    def add(self, entry: Entry) -> None:
        """Add one entry.

        Raises:
            PluginError: the name is taken; the message names both owners.
        """
        owner = self._entries.get(entry.name)
        if owner is not None:
            raise PluginError(
                f"The {NOUNS[self.kind]} {entry.name!r} of the plugin {entry.plugin!r} is already registered by "
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
            f"{name!r:.80} cannot be the name of a {NOUNS[kind]}; use letters, digits, '_' and '-', at most "
            f"{LONGEST_NAME} characters."
        )
    if name == "auto":
        raise PluginError(f"No {NOUNS[kind]} can be called 'auto', which is reserved for the automatic choice.")
    if not callable(factory) and not (isinstance(factory, str) and factory.count(":") == 1):
        raise PluginError(
            f"The factory of the {NOUNS[kind]} {name!r} must be callable, or a string 'module:name'; it is {factory!r}."
        )
    if not isinstance(summary, str) or not summary.strip():
        raise PluginError(f"The {NOUNS[kind]} {name!r} needs a summary, one line for listings.")
    return Entry(kind, name, factory, summary.strip(), plugin)


def _can_be_typed(name: str) -> bool:
    return name.replace("-", "_").isidentifier() and not name.startswith("-") and len(name) <= LONGEST_NAME


def _imported(path: str) -> Callable[..., Any]:
    module, name = path.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found

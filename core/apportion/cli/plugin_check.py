"""Trying out what a plugin registered."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable

from apportion.errors import PluginError
from apportion.registry import Entry

__all__ = ["faults_of"]

_PARTS = {
    "samplers": ("sample",),
    "methods": ("estimand", "requires", "run"),
    "targets": ("needs", "__call__"),
    "visualizers": ("render",),
    "backends": ("info", "availability", "load"),
}
"""What an object of each kind must have; of the other kinds, the factory alone is looked at."""


def faults_of(entries: Iterable[Entry]) -> list[str]:
    """A sentence for each registered name that cannot be imported, made, or is not what its kind asks for."""
    return [fault for entry in entries if (fault := _fault(entry))]


def _fault(entry: Entry) -> str:
    label = f"{entry.kind[:-1]} {entry.name!r}"
    try:
        made = _imported(entry) if entry.kind == "inputs" else entry.make()
    except PluginError as error:
        return str(error)
    except Exception as error:
        return f"The {label} cannot be imported: {type(error).__name__}: {error}"
    missing = [part for part in _PARTS.get(entry.kind, ()) if not hasattr(made, part)]
    if missing:
        return f"The {label} is a {type(made).__name__} without {', '.join(map(repr, missing))}."
    return ""


def _imported(entry: Entry) -> object:
    """The class of a prompt, which takes arguments and so is not called."""
    return pkgutil.resolve_name(entry.factory) if isinstance(entry.factory, str) else entry.factory

"""Trying out what a plugin registered."""

from __future__ import annotations

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
    try:
        # The class of a prompt takes arguments; it is imported and not called.
        made = entry.load() if entry.kind == "inputs" else entry.make()
    except PluginError as error:
        return str(error)
    missing = [part for part in _PARTS.get(entry.kind, ()) if not hasattr(made, part)]
    if missing:
        return (
            f"The {entry.kind[:-1]} {entry.name!r} is a {type(made).__name__} without {', '.join(map(repr, missing))}."
        )
    return ""

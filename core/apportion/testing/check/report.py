"""Findings about one plugin's entries and hooks."""

from __future__ import annotations

from collections.abc import Iterable

from apportion.errors import PluginError
from apportion.failures import explained
from apportion.hooks.manager import Plugins
from apportion.hooks.object_check import object_faults, summary_faults
from apportion.hooks.registry import NOUNS, Entry
from apportion.rendering.context import AdaptContext
from apportion.testing import tiny
from apportion.testing.check.finding import Finding
from apportion.testing.check.smoke import smoke

__all__ = ["examine", "examine_hooks"]


def examine(entries: Iterable[Entry], plugins: Plugins) -> list[Finding]:
    """Inspect everything that a plugin registered, and try it out."""
    return [_examined(entry, plugins) for entry in entries]


def examine_hooks(plugin: str, plugins: Plugins) -> list[str]:
    """Find faults in a plugin's hooks, such as an adapter that claims prompts of other plugins."""
    try:
        found = plugins.only(plugin, "apportion_adapt_input")(prompt=object(), context=AdaptContext(tiny.tokenizer()))
    except Exception as error:
        return [f"apportion_adapt_input fails for a prompt that is not its own: {explained(error)}"]
    if found is not None:
        return ["apportion_adapt_input claims any object; it must return None for prompts that are not its own."]
    return []


def _examined(entry: Entry, plugins: Plugins) -> Finding:
    label = f"The {NOUNS[entry.kind]} {entry.name!r}"
    try:
        # The class of a prompt needs arguments, so it is inspected but not called.
        made = entry.load() if entry.kind == "inputs" else entry.make()
    except PluginError as error:
        return Finding(entry.kind, entry.name, (str(error),))
    faults = [f"{label}: {fault}" for fault in summary_faults(entry.summary)]
    own_name = getattr(getattr(made, "info", None), "name", entry.name)
    if entry.kind == "backends" and own_name != entry.name:
        faults.append(f"{label} has the name {own_name!r} in its info; results would show that one.")
    broken = object_faults(entry.kind, made)
    faults += [f"{label} {fault}" for fault in broken]
    try:
        return Finding(entry.kind, entry.name, tuple(faults), smoke(entry, plugins))
    except PluginError as error:
        # An object that lacks a part cannot run; that fault is already listed.
        again = () if any("without" in fault for fault in broken) else (f"{label} {error}",)
        return Finding(entry.kind, entry.name, (*faults, *again))

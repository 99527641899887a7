"""The plugin manager. Plugins are loaded separately, so that a broken one is reported and the others work."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pluggy

from apportion._version import __version__
from apportion.errors import ApportionError, InputError, PluginError, shown
from apportion.failures import explained
from apportion.files import cache_dir
from apportion.hooks import hookspecs
from apportion.hooks.api_version import check_api_version
from apportion.hooks.hookspecs import API_VERSION, PROJECT, Settings
from apportion.hooks.registry import KINDS, Entry, Registry, checked_entry
from apportion.hooks.validation import blamed, check_plugin
from apportion.options import check_options, named_options, short_form
from apportion.protocols.progress import ProgressEvent

__all__ = ["FailedPlugin", "LoadedPlugin", "Plugins", "installed_plugins", "load_plugins", "switched"]

BUILT_INS = (
    "apportion_backends.torch",
    "apportion_backends.triton",
    "apportion_backends.onnxruntime",
    "apportion_backends.openai",
    "apportion_backends.vllm",
    "apportion_plugins.inputs",
    "apportion_plugins.pictures",
    "apportion_plugins.samplers",
    "apportion_plugins.methods",
    "apportion_plugins.targets",
    "apportion_plugins.metrics",
    "apportion_plugins.visualizers",
    "apportion_plugins.scoring",
)
"""Modules that come with apportion; hooks of plugins loaded later are called before theirs."""

SWITCHED = {
    "progress": "apportion_plugins.progress:ProgressBar",
    "cache": "apportion_plugins.cache:EvaluationCache",
    "run_log": "apportion_plugins.run_log:RunLog",
}
"""Built-in plugins that an argument of ``Explainer`` turns on; a value other than ``True`` is passed to the plugin."""

ENTRY_POINT_GROUP = "apportion"
DISABLE_VARIABLE = "APPORTION_DISABLE_PLUGINS"
AUTOLOAD_VARIABLE = "APPORTION_PLUGIN_AUTOLOAD"


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A loaded plugin.

    Attributes:
        name: name of its entry point, module or class.
        distribution: ``"package version"``, or ``"built-in"``, or ``"object"`` for ``plugins=[…]``.
        hooks: hooks that it implements.
    """

    name: str
    distribution: str
    hooks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailedPlugin:
    """A plugin that could not be loaded.

    Attributes:
        name: name of its entry point.
        distribution: ``"package version"``.
        error: the reason, in one sentence.
    """

    name: str
    distribution: str
    error: str


class Plugins:
    """Loaded plugins, their hooks and their registries.

    Args:
        disabled: names of plugins not to load.

    Attributes:
        loaded: plugins that work.
        failed: plugins that could not be loaded.
        disabled: plugins that the user disabled.
        off: switched-off built-in plugins, each with the argument of ``Explainer`` that turns it on.
        registries: registered names, by kind.
    """

    def __init__(self, disabled: Sequence[str] = ()) -> None:
        self.loaded: list[LoadedPlugin] = []
        self.failed: list[FailedPlugin] = []
        self.disabled: list[str] = []
        self.off: dict[str, str] = {}
        self.registries: Mapping[str, Registry] = {kind: Registry(kind, self._missing) for kind in KINDS}
        self._disabled = frozenset(disabled)
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        settings = Settings(__version__, API_VERSION, cache_dir())
        self._manager.hook.apportion_configure.call_historic(kwargs={"settings": settings})

    @property
    def hook(self) -> pluggy.HookRelay:
        """The hooks of all plugins, from pluggy; errors are not translated."""
        return self._manager.hook

    def call(self, hook: str, **arguments: object) -> Any:
        """Call a hook of all plugins.

        Raises:
            PluginError: a plugin failed in the hook; the message names the plugin, the hook and the line. Subclasses of
                ``ApportionError``, and errors of built-in plugins, are raised unchanged.
        """
        caller = getattr(self._manager.hook, hook)
        try:
            return caller(**arguments)
        except ApportionError:
            raise
        except Exception as error:
            plugin = blamed(error, caller.get_hookimpls())
            if plugin is None or any(plugin == p.name and p.distribution == "built-in" for p in self.loaded):
                raise
            raise PluginError(f"The plugin {plugin!r} failed in {hook}: {explained(error)}") from error

    def report(self, event: ProgressEvent) -> None:
        """Report an event to observers. Their errors become warnings: they must neither end a run nor hide its own."""
        try:
            self.call("apportion_on_progress", event=event)
        except Exception as error:
            warnings.warn(explained(error), RuntimeWarning, stacklevel=2)

    def __getitem__(self, kind: str) -> Registry:
        return self.registries[kind]

    def entries_of(self, plugin: str) -> list[Entry]:
        """All entries that one plugin registered."""
        return [entry for registry in self.registries.values() for entry in registry if entry.plugin == plugin]

    def add(self, name: str, distribution: str, load: Callable[[], object]) -> None:
        """Load one plugin, or record why it failed.

        Args:
            name: name in listings.
            distribution: package that provides it.
            load: imports it; may raise any error.
        """
        if name in self._disabled:
            self.disabled.append(name)
            return
        try:
            # Output that a plugin prints while it loads must not mix with results on stdout.
            with contextlib.redirect_stdout(sys.stderr):
                self._register(name, distribution, load())
        except (Exception, SystemExit) as error:
            self.failed.append(FailedPlugin(name, distribution, explained(error)))

    def require(self, plugin: object) -> None:
        """Load a plugin object passed in code, unless it is already loaded.

        Raises:
            PluginError: the plugin cannot be loaded.
        """
        if self._manager.is_registered(plugin):
            return
        name = getattr(plugin, "__name__", None) or type(plugin).__name__
        try:
            self._register(str(name), "object", plugin)
        except (Exception, SystemExit) as error:
            raise PluginError(f"The plugin {name!r} cannot be loaded: {explained(error)}") from error

    def scorers(self) -> tuple[tuple[str, str], ...]:
        """Name and distribution of each plugin that may score batches (``apportion_score``), except built-in ones."""
        distributions = {plugin.name: plugin.distribution for plugin in self.loaded}
        return tuple(
            (found.plugin_name, distributions[found.plugin_name])
            for found in self.hook.apportion_score.get_hookimpls()
            if not (found.wrapper or found.hookwrapper) and distributions[found.plugin_name] != "built-in"
        )

    def only(self, plugin: str, hook: str) -> Callable[..., Any]:
        """A hook of one plugin only, to try it out."""
        others = [other for other in self._manager.get_plugins() if self._manager.get_name(other) != plugin]
        return self._manager.subset_hook_caller(hook, remove_plugins=others)

    def make(self, kind: str, text: str) -> Any:
        """Make a registered object from its short form, such as ``make("fills", "blur:20")``.

        Raises:
            UnknownNameError: nothing of this kind has the name.
            InputError: an option is unknown or has a wrong value.
        """
        name, options = short_form(text, lambda name: named_options(self[kind].get(name).load()))
        return self[kind].get(name).make(**options)

    def visualize(self, view: str, attribution: object, options: Mapping[str, Any]) -> Any:
        """Draw a view of a result, with the visualizer of this name.

        Raises:
            UnknownNameError: there is no such view.
            InputError: the view has no such option.
        """
        visualizer = self["visualizers"].get(view).make()
        check_options(f"view {view!r}", visualizer.render, options)
        return visualizer.render(attribution, **options)

    def _missing(self) -> str:
        """A sentence about plugins whose names are not registered; empty if there are none."""
        absent = [f"{plugin.name!r} failed to load" for plugin in self.failed]
        absent += [f"{name!r} is disabled" for name in self.disabled]
        if os.environ.get(AUTOLOAD_VARIABLE) == "0":
            absent.append(f"installed plugins are not loaded ({AUTOLOAD_VARIABLE}=0)")
        return f"A plugin may be missing: {'; '.join(absent)}. See `apportion plugins list`." if absent else ""

    def _register(self, name: str, distribution: str, plugin: object) -> None:
        if self._manager.has_plugin(name):
            raise PluginError(f"Another plugin called {name!r} is loaded; give one of them another name.")
        check_api_version(plugin)
        check_plugin(name, plugin)
        try:
            self._manager.register(plugin, name)
            entries = self._collect(name, plugin)
        except BaseException:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise
        for entry in entries:
            self.registries[entry.kind].add(entry)
        hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ()))
        self.loaded.append(LoadedPlugin(name, distribution, hooks))

    def _collect(self, name: str, plugin: object) -> list[Entry]:
        """Run the plugin's registration hooks; nothing is registered until all of them have succeeded."""
        entries: list[Entry] = []
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        for kind in KINDS:
            staged = Registry(kind)

            def register(
                entry_name: str, factory: Any, *, summary: str = "", kind: str = kind, staged: Registry = staged
            ) -> None:
                entry = checked_entry(kind, name, entry_name, factory, summary)
                for registered in self.registries[kind]:
                    if registered.name == entry.name:
                        self.registries[kind].add(entry)  # raises, naming both owners
                staged.add(entry)

            hook = self._manager.subset_hook_caller(f"apportion_register_{kind}", remove_plugins=others)
            hook(register=register)
            entries.extend(staged)
        return entries


def load_plugins(plugins: Sequence[object] = (), switches: Mapping[str, object] | None = None) -> Plugins:
    """Load the built-ins, then the installed plugins, then ``plugins``.

    Two environment variables have an effect: ``APPORTION_DISABLE_PLUGINS=a,b`` disables these plugins, and
    ``APPORTION_PLUGIN_AUTOLOAD=0`` disables all installed plugins.

    Args:
        plugins: modules or objects with hook implementations.
        switches: values for ``SWITCHED``; missing and false ones are off.

    Raises:
        PluginError: one of ``plugins`` or ``switches`` cannot be loaded; a failed installed plugin is only recorded.
        InputError: a switch does not accept its value.
    """
    if not isinstance(plugins, Sequence) or isinstance(plugins, str):
        raise InputError(f"plugins={plugins!r:.80} must be a list of modules or objects with hooks: plugins=[…].")
    switched_off = [name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()]
    found = Plugins(switched_off)
    for module in BUILT_INS:
        found.add(module, "built-in", functools.partial(importlib.import_module, module))
    for switch, path in SWITCHED.items():
        module, value = path.split(":")[0], (switches or {}).get(switch)
        if (value is None or value is False) and module not in switched_off:
            found.off[module] = switch
        else:
            made = None if module in switched_off else switched(switch, value)
            found.add(module, "built-in", lambda made=made: made)  # type: ignore[misc]
    if os.environ.get(AUTOLOAD_VARIABLE, "1") != "0":
        for entry in sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
            dist = entry.dist
            found.add(entry.name, f"{dist.name} {dist.version}" if dist else "unknown", entry.load)
    for plugin in plugins:
        found.require(plugin)
    return found


def switched(switch: str, value: object) -> object:
    """Make the built-in plugin that an argument of ``Explainer`` turns on.

    Args:
        switch: one of ``SWITCHED``.
        value: ``True`` for the plugin's defaults; any other value is passed to the plugin.

    Raises:
        InputError: the plugin does not accept the value.
        PluginError: the plugin cannot be loaded.
    """
    module, name = SWITCHED[switch].split(":")
    try:
        made = getattr(importlib.import_module(module), name)
        needed = [p.name for p in inspect.signature(made).parameters.values() if p.default is p.empty]
        if value is True and needed:
            raise InputError(f"{switch}=True is not enough; give its {' and '.join(needed)}: {switch}=….")
        return made() if value is True else made(value)
    except ApportionError:
        raise
    except Exception as error:
        raise PluginError(f"{switch}={shown(value)} cannot be turned on: {explained(error)}") from error


@functools.cache
def installed_plugins() -> Plugins:
    """The installed plugins, loaded once per process, for results that were read from a file."""
    return load_plugins()

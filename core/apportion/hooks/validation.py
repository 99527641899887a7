"""Checks that an object is a plugin, and whose error it is."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterable

import pluggy

from apportion.errors import PluginError, listing, suggestion
from apportion.hooks import hookspecs
from apportion.hooks.hookspecs import PROJECT

__all__ = ["blamed", "check_plugin", "hook_names"]


def hook_names() -> list[str]:
    """Names of all hooks, in the order of ``hookspecs``."""
    return [name for name in vars(hookspecs) if name.startswith("apportion_")]


def check_plugin(name: str, plugin: object) -> None:
    """Reject plugins that pluggy would accept but never call, or reject with an unclear message.

    Raises:
        PluginError: the plugin is a class instead of an object, has no hook, has an unmarked hook, or uses a hook or an
            argument that does not exist.
    """
    if isinstance(plugin, type):
        raise PluginError(f"{plugin.__name__} is a class; pass an object of it: {plugin.__name__}().")
    known = hook_names()
    marked = [name for name in dir(plugin) if hasattr(getattr(plugin, name, None), f"{PROJECT}_impl")]
    for hook in known:
        if callable(getattr(plugin, hook, None)) and hook not in marked:
            raise PluginError(f"The function {hook!r} is not marked with @apportion.hookimpl, so it would never run.")
    unmarked = [name for name in dir(plugin) if name.startswith(f"{PROJECT}_") and name not in known]
    if unmarked and not marked:
        raise PluginError(
            f"There is no hook {unmarked[0]!r}, and it is not marked with @apportion.hookimpl. "
            f"{suggestion(unmarked[0], known)}The hooks: {listing(known, limit=20)}."
        )
    if not marked:
        raise PluginError(
            f"{name!r} implements no hook. Mark functions called {listing(known, limit=20)} with @hookimpl."
        )
    for hook in marked:
        if hook not in known:
            raise PluginError(
                f"There is no hook {hook!r}. {suggestion(hook, known)}The hooks: {listing(known, limit=20)}."
            )
        _check_arguments(hook, getattr(plugin, hook))


def _check_arguments(name: str, function: object) -> None:
    wrapper = getattr(function, f"{PROJECT}_impl")["wrapper"] or getattr(function, f"{PROJECT}_impl")["hookwrapper"]
    if inspect.iscoroutinefunction(function) or (inspect.isgeneratorfunction(function) and not wrapper):
        raise PluginError(
            f"{name!r} is {'async' if inspect.iscoroutinefunction(function) else 'a generator'}, and would never run. "
            "A hook is a plain function; one that yields is a wrapper: @apportion.hookimpl(wrapper=True)."
        )
    passed = list(inspect.signature(getattr(hookspecs, name)).parameters)
    for argument in inspect.signature(function).parameters:  # type: ignore[arg-type]
        if argument not in passed:
            raise PluginError(
                f"{name!r} is not given {argument!r}. {suggestion(argument, passed)}It is given: {listing(passed)}."
            )


def blamed(error: BaseException, implementations: Iterable[pluggy.HookImpl]) -> str | None:
    """The plugin whose implementation raised an error, or ``None`` if there is none."""
    owners = {}
    for implementation in implementations:
        function = inspect.unwrap(getattr(implementation.function, "__func__", implementation.function))
        owners[getattr(function, "__code__", None)] = implementation.plugin_name
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    # Take the innermost one, because an error also passes through wrappers.
    return next((owners[code] for code in reversed(codes) if code in owners), None)

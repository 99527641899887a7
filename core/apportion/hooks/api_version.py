"""Which plugins fit this apportion: the API version they were written for, and what they use that is going away.

Hooks and protocols only gain: an argument, an optional attribute, a hook. A plugin that declares fewer arguments
keeps working. What has to go is listed in ``DEPRECATIONS`` for at least one minor release before the API version
rises.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

from apportion._version import __version__
from apportion.errors import PluginError
from apportion.hooks.hookspecs import API_VERSION

__all__ = [
    "DEPRECATIONS",
    "OLDEST_API_VERSION",
    "Deprecation",
    "PluginDeprecationWarning",
    "check_api_version",
    "warn_deprecated",
]

OLDEST_API_VERSION = 1
"""Plugins written for this version or a later one load."""


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A hook, or an argument of one, that is going away.

    Attributes:
        hook: its name.
        argument: the argument; ``None`` for the whole hook.
        gone_in: the API version without it.
        instead: what to do, a sentence.
    """

    hook: str
    argument: str | None
    gone_in: int
    instead: str


DEPRECATIONS: tuple[Deprecation, ...] = ()


class PluginDeprecationWarning(FutureWarning):
    """A plugin uses something that is going away; shown to users, who can ask its author for a release."""


def check_api_version(plugin: object) -> None:
    """Refuse a plugin that states an API version which this apportion does not have.

    Raises:
        PluginError: with both versions, and which of the two has to be upgraded.
    """
    version = getattr(plugin, "APPORTION_API_VERSION", API_VERSION)
    if isinstance(version, bool) or not isinstance(version, int):
        raise PluginError(f"Its APPORTION_API_VERSION must be a whole number such as {API_VERSION}; it is {version!r}.")
    if OLDEST_API_VERSION <= version <= API_VERSION:
        return
    remedy = "Upgrade apportion" if version > API_VERSION else "Install a newer release of the plugin"
    has = str(API_VERSION) if OLDEST_API_VERSION == API_VERSION else f"{OLDEST_API_VERSION} to {API_VERSION}"
    raise PluginError(
        f"It is written for plugin API version {version}, and this is apportion {__version__} with version {has}. "
        f"{remedy}."
    )


def warn_deprecated(name: str, distribution: str, implementations: Iterable[tuple[str, pluggy.HookImpl]]) -> None:
    """Warn of what a plugin uses that is going away.

    Python shows a warning of the same text from the same line once in a process, however often plugins are loaded.

    Args:
        name: the plugin's.
        distribution: where it comes from.
        implementations: its hooks, each with its name.
    """
    for hook, implementation in implementations:
        for deprecation in DEPRECATIONS:
            used = deprecation.argument is None or deprecation.argument in implementation.argnames
            if deprecation.hook == hook and used:
                what = f"the argument {deprecation.argument!r} of {hook!r}" if deprecation.argument else f"{hook!r}"
                warnings.warn(
                    f"The plugin {name!r} ({distribution}) uses {what}, which goes away in plugin API version "
                    f"{deprecation.gone_in}. {deprecation.instead}",
                    PluginDeprecationWarning,
                    stacklevel=1,
                )

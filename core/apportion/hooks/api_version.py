"""Check of the plugin API version that a plugin was written for."""

from __future__ import annotations

from apportion._version import __version__
from apportion.errors import PluginError
from apportion.hooks.hookspecs import API_VERSION

__all__ = ["check_api_version"]


def check_api_version(plugin: object) -> None:
    """Reject a plugin written for another API version; a plugin that states none is assumed to fit.

    Raises:
        PluginError: the versions differ; the message states both, and which side to upgrade.
    """
    version = getattr(plugin, "APPORTION_API_VERSION", API_VERSION)
    if isinstance(version, bool) or not isinstance(version, int):
        raise PluginError(f"Its APPORTION_API_VERSION must be a whole number such as {API_VERSION}; it is {version!r}.")
    if version == API_VERSION:
        return
    remedy = "Upgrade apportion" if version > API_VERSION else "Install a newer release of the plugin"
    raise PluginError(
        f"It is written for plugin API version {version}, and this is apportion {__version__} with version "
        f"{API_VERSION}. {remedy}."
    )

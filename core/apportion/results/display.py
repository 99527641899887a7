"""Views of what is not a single result: in the terminal, and as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.errors import ResultError
from apportion.results.html_view import HtmlView

if TYPE_CHECKING:
    from apportion.hooks.manager import Plugins

__all__ = ["as_html", "plugins_or_installed", "print_view"]


def print_view(plugins: Plugins | None, render: str, shown: object) -> None:
    """Print the output of a method of the visualizer ``"terminal"``.

    Args:
        plugins: plugins that provide views; ``None`` for the installed ones.
        render: name of the method, such as ``"render_evaluations"``.
        shown: its argument.

    Raises:
        ResultError: the visualizer has no such method.
    """
    from rich.console import Console

    Console().print(_rendered(plugins, "terminal", render, shown))


def as_html(plugins: Plugins | None, render: str, shown: object) -> HtmlView:
    """The output of a method of the visualizer ``"html"``; arguments and errors as for ``print_view``."""
    view = _rendered(plugins, "html", render, shown)
    if not isinstance(view, HtmlView):
        raise ResultError(f"{render} of the visualizer 'html' returned {type(view).__name__} instead of an HtmlView.")
    return view


def plugins_or_installed(plugins: Plugins | None) -> Plugins:
    """The plugins that a result came with, or else the installed ones."""
    from apportion.hooks.manager import installed_plugins

    return plugins or installed_plugins()


def _rendered(plugins: Plugins | None, visualizer: str, render: str, shown: object) -> Any:
    view = plugins_or_installed(plugins)["visualizers"].get(visualizer).make()
    if not hasattr(view, render):
        raise ResultError(f"The visualizer {visualizer!r} has no {render}, so it cannot show this.")
    return getattr(view, render)(shown)

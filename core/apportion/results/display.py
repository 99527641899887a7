"""Views of what is not a single result: in the terminal, and as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.errors import ResultError, listing
from apportion.options import check_options
from apportion.results.html_view import HtmlView

if TYPE_CHECKING:
    from apportion.hooks.manager import Plugins

__all__ = ["as_html", "plugins_or_installed", "print_view", "rendered"]


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

    Console().print(rendered(plugins, "terminal", render, shown))


def as_html(plugins: Plugins | None, render: str, shown: object) -> HtmlView:
    """The output of a method of the visualizer ``"html"``; arguments and errors as for ``print_view``."""
    view = rendered(plugins, "html", render, shown)
    if not isinstance(view, HtmlView):
        raise ResultError(f"{render} of the visualizer 'html' returned {type(view).__name__} instead of an HtmlView.")
    return view


def plugins_or_installed(plugins: Plugins | None) -> Plugins:
    """The plugins that a result came with, or else the installed ones."""
    from apportion.hooks.manager import installed_plugins

    return plugins or installed_plugins()


def rendered(plugins: Plugins | None, visualizer: str, render: str, shown: object, **options: Any) -> Any:
    """The output of a method of a visualizer.

    Args:
        plugins: plugins that provide views; ``None`` for the installed ones.
        visualizer: name of the visualizer.
        render: name of its method, such as ``"render_comparison"``.
        shown: the method's argument.
        **options: its options.

    Raises:
        UnknownNameError: there is no such visualizer.
        ResultError: it has no such method.
        InputError: the method has no such option.
    """
    registry = plugins_or_installed(plugins)["visualizers"]
    view = registry.get(visualizer).make()
    if not hasattr(view, render):
        able = [entry.name for entry in registry if hasattr(entry.load(), render)]
        raise ResultError(
            f"The visualizer {visualizer!r} has no {render}, so it cannot show this. Those that have: {listing(able)}."
        )
    method = getattr(view, render)
    check_options(f"{render} of {visualizer!r}", method, options)
    return method(shown, **options)

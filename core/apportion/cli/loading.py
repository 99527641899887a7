"""A spinner to show while a model loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

__all__ = ["loading"]


@contextmanager
def loading(model: str, *, shown: bool) -> Iterator[None]:
    """Show a spinner on stderr until the model is loaded, in terminals only."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield
        return
    with console.status(f"loading {escape(model)}"):
        yield

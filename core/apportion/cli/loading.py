"""Something to look at while a model loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

__all__ = ["loading"]


@contextmanager
def loading(model: str, *, shown: bool) -> Iterator[None]:
    """A spinner on stderr, in terminals only and gone when the model is there."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield
        return
    with console.status(f"loading {escape(model)}"):
        yield

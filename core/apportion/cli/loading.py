"""The display while a model loads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from apportion.protocols.progress import ALWAYS, NEVER

__all__ = ["loading"]


@contextmanager
def loading(model: str, *, progress: str) -> Iterator[None]:
    """Show a spinner on stderr until the model is loaded; elsewhere than in a terminal, a line if that is wanted."""
    console = Console(stderr=True)
    if progress == NEVER or not console.is_terminal:
        if progress == ALWAYS:
            print(f"loading {model}", file=sys.stderr, flush=True)  # noqa: T201
        yield
        return
    with console.status(f"loading {escape(model)}"):
        yield

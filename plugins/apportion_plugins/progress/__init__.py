"""A progress bar: on stderr in a terminal, below the cell in a notebook, and off otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from rich.console import Console

from apportion.errors import counted
from apportion.hooks.hookspecs import hookimpl
from apportion.protocols.progress import ProgressEvent
from apportion_plugins.progress.notebook import NotebookBar
from apportion_plugins.progress.terminal import TerminalBar

__all__ = ["ProgressBar"]


@runtime_checkable
class _Bar(Protocol):
    def show(self, label: str, done: int, total: int | None, more: str = "") -> None: ...

    def remove(self) -> None: ...


class ProgressBar:
    """Shows one bar per run, or one for all runs of ``attribute_many``.

    Args:
        console: console for the bar of a terminal; stderr if ``None``.
        clock: returns seconds.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._notebook = NotebookBar()
        self._bar: _Bar | None = None
        self._many_since: float | None = None

    # First, so that the bar is removed even when another observer fails.
    @hookimpl(tryfirst=True)
    def apportion_on_progress(self, event: ProgressEvent) -> None:
        """Draw, update or remove the bar."""
        if event.stage == "items":
            self._show_many(event)
        elif event.stage == "close" or (event.stage == "end" and self._many_since is None):
            self._many_since = None
            if self._bar is not None:
                self._bar.remove()
                self._bar = None
        elif self._many_since is None:
            self._show(event)

    def _show(self, event: ProgressEvent) -> None:
        """Show the progress of one run."""
        self._bar = self._bar or self._chosen()
        if self._bar is None:
            return
        if event.stage == "generate":
            self._bar.show("generating the target", 0, None)
        else:
            self._bar.show("scoring", event.done, event.total)

    def _show_many(self, event: ProgressEvent) -> None:
        """Show the progress of many runs: how many have ended, and how fast they are scored."""
        if self._many_since is None:
            self._many_since = self._clock()
        self._bar = self._bar or self._chosen()
        if self._bar is not None:
            seconds = self._clock() - self._many_since
            rate = f", {event.evaluations / seconds:.1f}/s" if event.evaluations and seconds > 0 else ""
            more = f"{counted(event.evaluations, 'evaluation')}{rate}"
            self._bar.show("prompts", event.done, event.total or None, more)

    def _chosen(self) -> _Bar | None:
        """The bar for this environment; ``None`` where no one would see it."""
        console = self._console or Console(stderr=True)
        if console.is_jupyter:
            return self._notebook
        return TerminalBar(console) if console.is_terminal else None

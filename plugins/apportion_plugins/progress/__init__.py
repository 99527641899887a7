"""A progress bar: on stderr in a terminal, below the cell in a notebook, silent in a pipe."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rich.console import Console

from apportion.hookspecs import hookimpl
from apportion.progress import ProgressEvent
from apportion_plugins.progress.notebook import NotebookBar
from apportion_plugins.progress.terminal import TerminalBar

__all__ = ["ProgressBar"]


@runtime_checkable
class _Bar(Protocol):
    def show(self, label: str, done: int, total: int | None) -> None: ...

    def remove(self) -> None: ...


class ProgressBar:
    """Shows one bar for each run; the plugin object holds it between events.

    Args:
        console: where a terminal's bar goes; stderr if ``None``.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._notebook = NotebookBar()
        self._bar: _Bar | None = None

    # First, so that the bar is removed even when another observer fails.
    @hookimpl(tryfirst=True)
    def apportion_on_progress(self, event: ProgressEvent) -> None:
        """Draw, update or remove the bar."""
        if event.stage == "end":
            if self._bar is not None:
                self._bar.remove()
                self._bar = None
            return
        self._bar = self._bar or self._chosen()
        if self._bar is None:
            return
        if event.stage == "generate":
            self._bar.show("generating the target", 0, None)
        else:
            self._bar.show("scoring", event.done, event.total)

    def _chosen(self) -> _Bar | None:
        """What fits where the run was started; nothing where nobody watches."""
        console = self._console or Console(stderr=True)
        if console.is_jupyter:
            return self._notebook
        return TerminalBar(console) if console.is_terminal else None

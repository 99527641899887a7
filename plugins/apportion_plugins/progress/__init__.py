"""Progress: a bar on stderr in a terminal, or below the cell in a notebook, and a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from rich.console import Console

from apportion.errors import InputError, counted
from apportion.hooks.hookspecs import hookimpl
from apportion.protocols.progress import ALWAYS, AUTO, ProgressEvent
from apportion_plugins.progress.lines import ProgressLines
from apportion_plugins.progress.notebook import NotebookBar
from apportion_plugins.progress.rates import State
from apportion_plugins.progress.terminal import TerminalBar

__all__ = ["ProgressBar"]


@runtime_checkable
class _Bar(Protocol):
    def show(self, state: State) -> None: ...

    def remove(self) -> None: ...


class ProgressBar:
    """Shows one bar per run, or one for all runs of ``attribute_many``.

    Args:
        mode: ``"auto"``, or ``"always"`` to write a first and a last line, too, where there is no terminal.
        console: console for the bar of a terminal, or for lines; stderr if ``None``.
        clock: returns seconds.

    Raises:
        InputError: the mode is unknown.
    """

    def __init__(
        self, mode: str = AUTO, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if mode not in (AUTO, ALWAYS):
            raise InputError(f"progress={mode!r} must be {AUTO!r} or {ALWAYS!r}.")
        self._ends = mode == ALWAYS
        self._console = console
        self._clock = clock
        self._notebook = NotebookBar()
        self._bar: _Bar | None = None
        self._many = False

    # First, so that the bar is removed even when another observer fails.
    @hookimpl(tryfirst=True)
    def apportion_on_progress(self, event: ProgressEvent) -> None:
        """Draw, update or remove the bar."""
        if event.stage == "items":
            self._many = True
            self._show_many(event)
        elif event.stage == "close" or (event.stage == "end" and not self._many):
            self._many = False
            if self._bar is not None:
                self._bar.remove()
                self._bar = None
        elif not self._many:
            self._show(event)

    def _show(self, event: ProgressEvent) -> None:
        """Show the progress of one run."""
        self._bar = self._bar or self._chosen()
        if event.stage == "generate":
            self._bar.show(State("generating the target", 0))
        else:
            self._bar.show(State("scoring", event.done, event.total))

    def _show_many(self, event: ProgressEvent) -> None:
        """Show the progress of many runs: how many have ended, how fast, and what they have scored."""
        self._bar = self._bar or self._chosen()
        more = counted(event.evaluations, "evaluation")
        works = event.evaluations > 0
        self._bar.show(State("prompts", event.done, event.total or None, more, event.share, works))

    def _chosen(self) -> _Bar:
        """The bar for this environment, or lines."""
        console = self._console or Console(stderr=True)
        if console.is_jupyter:
            return self._notebook
        if console.is_terminal:
            return TerminalBar(console)
        return ProgressLines(
            lambda line: print(line, file=console.file, flush=True), ends=self._ends, clock=self._clock
        )

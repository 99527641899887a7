"""The progress bar for terminals, removed when the run is over."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from apportion_plugins.progress.rates import State, Timing

__all__ = ["TerminalBar"]


class TerminalBar:
    """A label, bar, count, rate and remaining time on one line.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._timing = Timing(time.monotonic)
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            # The bar takes what the terminal leaves: facts that wrap would make the display jump.
            BarColumn(bar_width=None, table_column=Column(max_width=40)),
            TextColumn("{task.fields[count]}", table_column=Column(no_wrap=True)),
            _RateColumn(self._timing, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[more]}", style="dim", table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
        )
        self._done = 0
        self._progress.start()

    def show(self, state: State) -> None:
        """Draw the current state, followed by ``more``. A smaller count or another total restarts the bar."""
        self._timing.note(state)
        if not self._progress.tasks:
            self._progress.add_task(state.label, total=state.total, more=state.more, count=state.count)
        task = self._progress.tasks[0]
        if state.done < self._done or state.total != task.total:
            self._progress.reset(task.id, total=state.total, description=state.label)
        self._done = state.done
        self._progress.update(
            task.id, completed=state.done + state.share, description=state.label, more=state.more, count=state.count
        )

    def remove(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class _RateColumn(ProgressColumn):
    """Rate and remaining time."""

    def __init__(self, timing: Timing, table_column: Column) -> None:
        super().__init__(table_column)
        self._timing = timing

    def render(self, task: Task) -> Text:
        return Text(" · ".join(self._timing.facts()), style="dim")

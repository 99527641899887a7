"""The bar of a terminal, gone when the run is over."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from apportion_plugins.progress.rates import rate_text

__all__ = ["TerminalBar"]


class TerminalBar:
    """Label, bar, count, rate and time left on one line.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[more]}", style="dim"),
            console=console,
            transient=True,
            # The default forgets what is older than 30 seconds, and one of many prompts may take longer.
            speed_estimate_period=600,
        )
        self._progress.start()

    def show(self, label: str, done: int, total: int | None, more: str = "") -> None:
        """Draw the present state, and more facts behind it; a smaller count or another total begins anew."""
        if not self._progress.tasks:
            self._progress.add_task(label, total=total, more=more)
        task = self._progress.tasks[0]
        if done < task.completed or total != task.total:
            self._progress.reset(task.id, total=total, description=label)
        self._progress.update(task.id, completed=done, description=label, more=more)

    def remove(self) -> None:
        """Give the line back."""
        self._progress.stop()


class _RateColumn(ProgressColumn):
    """Prompts a second, or seconds a prompt."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else rate_text(rate), style="dim")

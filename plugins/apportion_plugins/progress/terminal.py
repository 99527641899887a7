"""The progress bar for terminals, removed when the run is over."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.text import Text

from apportion_plugins.progress.rates import left_text, rate_text

__all__ = ["TerminalBar"]


class TerminalBar:
    """A label, bar, count, rate and remaining time on one line.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TextColumn("{task.fields[more]}", style="dim"),
            console=console,
            transient=True,
        )
        self._progress.start()

    def show(self, label: str, done: int, total: int | None, more: str = "") -> None:
        """Draw the current state, followed by ``more``. A smaller count or another total restarts the bar."""
        if not self._progress.tasks:
            self._progress.add_task(label, total=total, more=more)
        task = self._progress.tasks[0]
        if done < task.completed or total != task.total:
            self._progress.reset(task.id, total=total, description=label)
        self._progress.update(task.id, completed=done, description=label, more=more)

    def remove(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class _RateColumn(ProgressColumn):
    """Rate and remaining time."""

    def render(self, task: Task) -> Text:
        done, seconds = int(task.completed), task.finished_time or task.elapsed
        if not done or not seconds:
            return Text("")
        facts = [rate_text(done / seconds)]
        if task.total:
            facts.append(left_text(done, int(task.total), seconds))
        return Text(" · ".join(facts), style="dim")

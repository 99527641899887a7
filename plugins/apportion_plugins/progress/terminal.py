"""A progress bar on stderr: in a terminal with rate and time left, silent in a pipe."""

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

from apportion.hookspecs import hookimpl
from apportion.progress import ProgressEvent

__all__ = ["ProgressBar"]


class ProgressBar:
    """Shows one bar for each run; the plugin object holds it between events."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._progress: Progress | None = None

    # First, so that the bar is removed even when another observer fails.
    @hookimpl(tryfirst=True)
    def apportion_on_progress(self, event: ProgressEvent) -> None:
        """Draw, update or remove the bar."""
        if event.stage == "end":
            self._stop()
            return
        console = self._console or Console(stderr=True)
        if not console.is_terminal:
            return
        if self._progress is None:
            self._progress = _bar(console)
            self._progress.start()
        label, total = ("generating the target", None) if event.stage == "generate" else ("scoring", event.total)
        if not self._progress.tasks:
            self._progress.add_task(label, total=total)
        task = self._progress.tasks[0]
        if event.done < task.completed or total != task.total:
            self._progress.reset(task.id, total=total, description=label)
        self._progress.update(task.id, completed=event.done, description=label)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


class _RateColumn(ProgressColumn):
    """Prompts a second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text("" if rate is None else f"{rate:.1f} prompts/s", style="dim")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )

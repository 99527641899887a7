"""Progress of work that a command does step by step."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from apportion.protocols.progress import ALWAYS, NEVER, Pace

__all__ = ["ticking"]


@contextmanager
def ticking(command: str, unit: str, total: int, progress: str) -> Iterator[Callable[[str], None]]:
    """A bar on stderr that advances after each step and disappears at the end; elsewhere than in a terminal, lines.

    Args:
        command: label before the first step.
        unit: what a step is, such as ``"run"``.
        total: number of steps.
        progress: ``"auto"``, ``"always"`` or ``"never"``.

    Yields:
        A function to call after each step, with a label.
    """
    stderr = Console(stderr=True)
    if progress == NEVER:
        yield lambda _: None
    elif not stderr.is_terminal:
        yield _lines(unit, total, every=progress == ALWAYS)
    else:
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(f"{unit}s"))
        # A bar that redraws itself during a timed run would take part of a core: it is drawn after each step.
        bar = Progress(*columns, console=stderr, transient=True, auto_refresh=False)
        task = bar.add_task(command, total=total)
        with bar:
            bar.refresh()
            yield lambda name: bar.update(task, advance=1, description=name, refresh=True)


def _lines(unit: str, total: int, *, every: bool) -> Callable[[str], None]:
    """Writes a line on stderr after every step, or after those that a line is due."""
    pace, steps = Pace(), itertools.count(1)

    def tick(name: str) -> None:
        number = next(steps)
        if pace.due() or every:
            print(f"{name}: {unit} {number} of {total}", file=sys.stderr, flush=True)  # noqa: T201

    return tick

"""An observer plugin that records the evaluated prompts of a run, and the time spent scoring."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from apportion.hooks.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from apportion.protocols.request import Request
    from apportion.protocols.row import Row

__all__ = ["Watcher"]


class Watcher:
    """Records evaluated prompts and scoring time; pass it to ``Explainer(plugins=[…])``.

    Attributes:
        keeps: true if sequences are recorded; off during timing, because copying them takes time.
        sequences: tokens read for each distinct prompt: those of the prompt, and all but the last of the target.
        seconds: time in seconds spent in the session. The rest of a run is planning, rendering and the method itself.
    """

    def __init__(self) -> None:
        self.keeps = False
        self.sequences: set[tuple[int, ...]] = set()
        self.seconds = 0.0
        self._targets: set[tuple[int, ...]] = set()

    def reset(self, *, keeps: bool) -> None:
        """Reset before a run."""
        self.keeps = keeps
        self.sequences = set()
        self.seconds = 0.0

    @hookimpl
    def apportion_before_run(self, request: Request) -> None:
        """Learn the run's own targets; rows with others, such as another spelling, are not part of its work."""
        contrast = request.target.contrast
        self._targets = {request.target.ids, *(() if contrast is None else (contrast.ids,))}

    @hookimpl
    def apportion_lookup(self, rows: Sequence[Row]) -> None:
        """Record all rows before they are divided into batches; returns no scores."""
        if self.keeps:
            self.sequences.update(row.read for row in rows if row.target in self._targets)

    @hookimpl(wrapper=True)
    def apportion_score(self) -> Generator[None, Tensor, Tensor]:
        """Measure the time of a batch."""
        started = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds += time.perf_counter() - started

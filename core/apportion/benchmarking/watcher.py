"""An observer plugin: which prompts a run asked for, and how long scoring them took."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from apportion.hooks.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from apportion.protocols.row import Row

__all__ = ["Watcher"]


class Watcher:
    """Give it to ``Explainer(plugins=[…])``.

    Attributes:
        keeps: whether sequences are kept; off while time is taken, because copying them takes some.
        sequences: what was read for each distinct prompt: its tokens, and those of the target but the last.
        seconds: spent in the session. What is left of a run is planning, rendering and the method's own work.
    """

    def __init__(self) -> None:
        self.keeps = False
        self.sequences: set[tuple[int, ...]] = set()
        self.seconds = 0.0

    def reset(self, *, keeps: bool) -> None:
        """Before a run."""
        self.keeps = keeps
        self.sequences = set()
        self.seconds = 0.0

    @hookimpl
    def apportion_lookup(self, rows: Sequence[Row]) -> None:
        """Knows nothing; sees all that is asked, before it is laid out in batches."""
        if self.keeps:
            self.sequences.update(row.read for row in rows)

    @hookimpl(wrapper=True)
    def apportion_score(self) -> Generator[None, Tensor, Tensor]:
        """Takes the time of a batch."""
        started = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds += time.perf_counter() - started

"""An observer plugin: which prompts a run asked for, and how long scoring them took."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from apportion.hooks.hookspecs import hookimpl

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

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
    def apportion_recall(self, prompts: Sequence[tuple[int, ...]], target_ids: tuple[int, ...]) -> None:
        """Knows nothing; sees all that is asked, before it is laid out in batches."""
        if self.keeps:
            self.sequences.update((*prompt, *target_ids[:-1]) for prompt in prompts)

    @hookimpl(wrapper=True)
    def apportion_score(self) -> Generator[None, Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Takes the time of a batch."""
        started = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds += time.perf_counter() - started

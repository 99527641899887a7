"""Time and memory of a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Contender", "Timed", "measure"]

TRIES = 5
"""On a CPU, where this only shows that it works."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What a call took.

    Attributes:
        median: seconds.
        low: of a fifth of the calls at most.
        high: of four fifths at most.
        extra_bytes: the most memory beyond what was held before; ``None`` where that is not counted.
    """

    median: float
    low: float
    high: float
    extra_bytes: int | None


@dataclass(frozen=True, slots=True)
class Contender:
    """A row of a table.

    Attributes:
        name: who.
        timed: ``None`` if it could not run.
        error: the largest difference from fp64 on the same inputs, where that is asked.
        note: why it could not run, or what a reader should know.
    """

    name: str
    timed: Timed | None
    error: float | None = None
    note: str = ""


def measure(call: Callable[[], object], device: str) -> Timed:
    """Median, lower and upper fifth, and peak memory."""
    if device == "cpu":
        seconds = []
        for _ in range(TRIES):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
        return Timed(statistics.median(seconds), min(seconds), max(seconds), None)
    from triton.testing import do_bench

    call()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    extra = torch.cuda.max_memory_allocated() - held
    median, low, high = (ms / 1000 for ms in do_bench(call, quantiles=[0.5, 0.2, 0.8]))
    return Timed(median, low, high, extra)

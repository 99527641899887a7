"""Time and memory of a call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Contender", "Timed", "measure"]

TRIES = 5
"""Repetitions on a CPU, where runs only check that the benchmark works."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Time and memory of a call.

    Attributes:
        median: seconds.
        low: seconds, the 20th percentile (on a CPU the minimum).
        high: seconds, the 80th percentile (on a CPU the maximum).
        extra_bytes: peak memory beyond what was allocated before; ``None`` where it is not measured.
    """

    median: float
    low: float
    high: float
    extra_bytes: int | None


@dataclass(frozen=True, slots=True)
class Contender:
    """A row of a table.

    Attributes:
        name: name of the implementation.
        timed: time and memory; ``None`` if it could not run.
        error: largest difference from fp64 on the same inputs; ``None`` where it is not measured.
        note: reason why it could not run, or a remark.
    """

    name: str
    timed: Timed | None
    error: float | None = None
    note: str = ""


def measure(call: Callable[[], object], device: str) -> Timed:
    """Measure the median, the 20th and 80th percentile, and peak memory."""
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

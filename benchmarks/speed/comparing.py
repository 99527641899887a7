"""Comparison of one case: values, times, counts and memory of apportion and its peers."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from benchmarks.speed.cases import Case
from benchmarks.speed.counting import Read, counted
from benchmarks.speed.memory import OURS, Peak, peak_in_own_process
from benchmarks.speed.peer import Peer

import apportion as ap
from apportion.benchmarking.measuring import Measured, Stopwatch
from apportion.benchmarking.watcher import Watcher

__all__ = ["Compared", "Contender", "Effort", "compare", "opened"]


@dataclass(frozen=True, slots=True)
class Effort:
    """Effort spent on a case.

    Attributes:
        repeats: number of runs of apportion, as far as they fit into ``seconds``; at least two, and more if together
            they take less than ``short``.
        seconds: time limit for all runs of apportion.
        short: time to fill with short runs, which are easily disturbed and therefore repeated often.
        peer_repeats: number of runs of a peer, as far as they fit into ``peer_seconds``; at least one.
        peer_seconds: time limit for all runs of a peer.
        memory: measure memory peaks.
        long: include cases that take very long.
    """

    repeats: int = 6
    seconds: float = 90.0
    short: float = 10.0
    peer_repeats: int = 3
    peer_seconds: float = 30.0
    memory: bool = True
    long: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """A row of the table.

    Attributes:
        who: its name.
        version: version of its package; ``None`` if that is not installed, and then nothing else is set.
        seconds: duration of each run.
        read: counts of what the model read in one run.
        difference: largest difference from our values; ``None`` for our own, and if they need not agree.
        agrees: the difference is within the peer's tolerance.
        peak: peak memory.
        wrong: its values are known to be wrong.
        note: note for readers.
    """

    who: str
    version: str | None
    seconds: tuple[float, ...] = ()
    read: Read = field(default_factory=Read)
    difference: float | None = None
    agrees: bool = True
    peak: Peak | None = None
    note: str = ""
    wrong: bool = False

    @property
    def median(self) -> float:
        """Median seconds of a run."""
        return statistics.median(self.seconds)


PEAK_SECONDS = 60.0
"""Measuring a peer's memory takes another run; it is skipped if that takes longer than this."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Measurements of a case.

    Attributes:
        ours: measurements of apportion, with the floor.
        contenders: all contenders, apportion first.
        aim: target ratios.
    """

    ours: Measured
    contenders: tuple[Contender, ...]
    aim: dict[str, float]


def opened() -> tuple[ap.Explainer, Watcher]:
    """An explainer of the demo model, and the observer of its runs."""
    watcher = Watcher()
    return ap.Explainer("smollm2", progress=False, plugins=[watcher]), watcher


def compare(case: Case, explainer: ap.Explainer, watcher: Watcher, effort: Effort) -> Compared:
    """Compare one case. Values are checked before anything is timed; ours is timed before and after the peers."""
    _say(f"{case.work.name}: apportion …")
    started = time.perf_counter()
    with counted(explainer.session.model) as read:
        stopwatch = Stopwatch(explainer, watcher, case.work)
    first = time.perf_counter() - started
    wanted_runs = max(effort.repeats, round(effort.short / first))
    half = max(1, min(wanted_runs, round(effort.seconds / first)) // 2)
    wanted = case.values(stopwatch.result)
    stopwatch.time(half)
    peers = [
        _peer(case, who, peer, wanted, explainer, effort)
        for who, peer in case.peers.items()
        if effort.long or not peer.long
    ]
    stopwatch.time(half)
    measured = stopwatch.measured()
    peak = peak_in_own_process(case.work.name, OURS) if effort.memory else None
    # Packed rows count as a single row of the model's input.
    read.rows = measured.evaluations
    ours = Contender(OURS, ap.__version__, measured.seconds, read, peak=peak)
    return Compared(measured, (ours, *peers), dict(case.aim))


def _peer(case: Case, who: str, peer: Peer, wanted: np.ndarray, explainer: ap.Explainer, effort: Effort) -> Contender:
    if peer.version is None:
        return Contender(who, None, note="not installed")
    _say(f"{case.work.name}: {who} …")
    try:
        with counted(explainer.session.model) as read:
            run = peer.prepare(explainer.session)
            read.reset()
            values, first = _timed(run)
        difference, agrees = _difference(values, wanted, peer)
        if not agrees:
            return Contender(who, peer.version, agrees=False, note=f"not timed: values differ by {difference}")
        # The first run is a warm-up, as ours is, unless it takes so long that warming up does not matter.
        seconds = [first] if first > effort.peer_seconds / 2 else []
        while not seconds or (len(seconds) < effort.peer_repeats and sum(seconds) + first <= effort.peer_seconds):
            seconds.append(_timed(run)[1])
    except Exception as error:  # a peer's failure is a finding and must not end the benchmark
        return Contender(who, peer.version, note=f"failed: {type(error).__name__}: {str(error)[:100]}")
    quick = first <= PEAK_SECONDS
    peak = peak_in_own_process(case.work.name, who) if effort.memory and quick else None
    return Contender(who, peer.version, tuple(seconds), read, difference, agrees, peak, peer.note, peer.wrong)


def _difference(values: np.ndarray, wanted: np.ndarray, peer: Peer) -> tuple[float | None, bool]:
    """The largest difference, if it is meaningful, and whether it is within the tolerance."""
    if peer.tolerance is None and not peer.wrong:
        return None, True
    difference = float(np.abs(values - wanted).max()) if values.shape == wanted.shape else float("nan")
    return difference, peer.tolerance is None or difference <= peer.tolerance


def _timed(run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    values = run()
    return values, time.perf_counter() - started


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

"""Measurement of one case on one model: time, counts, and the achieved fraction of the machine's speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from apportion.benchmarking.floor import ModelShape, optimal_flops
from apportion.benchmarking.gemm import gemm_rate
from apportion.benchmarking.tree import prefix_tree
from apportion.benchmarking.watcher import Watcher
from apportion.benchmarking.works import Work
from apportion.models.dtypes import DTYPES

if TYPE_CHECKING:
    from apportion.explainer import Explainer
    from apportion.results.attribution import Attribution

__all__ = ["Measured", "Need", "Stopwatch", "need", "rate_beside"]


@dataclass(frozen=True, slots=True)
class Need:
    """Minimum requirements of a case.

    Attributes:
        evaluations: number of distinct prompts.
        tokens: number of nodes in the prefix tree of prompts and target.
        flops: number of operations for these tokens.
    """

    evaluations: int
    tokens: int
    flops: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one case.

    Attributes:
        case: name of the case.
        summary: description of the case.
        backend: name of the backend.
        device: device that the session runs on.
        dtype: dtype of the weights.
        seconds: duration of each run in seconds, after a first run that does not count.
        scoring_seconds: time in seconds that the fastest run spent in the session.
        evaluations: number of distinct prompts scored.
        forwarded_tokens: number of tokens that the model read, padding included.
        least_tokens: minimum number of tokens to read, from the prefix tree.
        least_flops: number of operations for these tokens.
        gemm_rate: operations per second of matrix products by ``torch.mm``, measured around the runs.
        onednn_rate: the same by oneDNN, if it supports such matrices.
    """

    case: str
    summary: str
    backend: str
    device: str
    dtype: str
    seconds: tuple[float, ...]
    scoring_seconds: float
    evaluations: int
    forwarded_tokens: int
    least_tokens: int
    least_flops: int
    gemm_rate: float
    onednn_rate: float | None

    @property
    def median(self) -> float:
        """Median duration of a run in seconds."""
        return statistics.median(self.seconds)

    @property
    def floor_seconds(self) -> float:
        """Time in seconds that the minimum arithmetic takes at the rate of matrix products."""
        return self.least_flops / self.gemm_rate

    @property
    def share_of_floor(self) -> float:
        """Fraction of a run that the minimum arithmetic would take at the rate of ``torch.mm``."""
        return self.floor_seconds / self.median

    @property
    def share_of_best(self) -> float:
        """The same fraction at the rate of ``torch.mm`` or oneDNN, whichever is higher."""
        return self.share_of_floor * self.gemm_rate / max(self.gemm_rate, self.onednn_rate or 0.0)

    @property
    def share_beside_scoring(self) -> float:
        """Fraction of the fastest run spent outside the session: planning, rendering and the method itself."""
        return 1 - self.scoring_seconds / min(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, derived ones included."""
        return asdict(self) | {
            "seconds": list(self.seconds),
            "median_seconds": self.median,
            "evaluations_per_second": self.evaluations / self.median,
            "tokens_per_second": self.forwarded_tokens / self.median,
            "floor_seconds": self.floor_seconds,
            "share_of_floor": self.share_of_floor,
            "share_of_best": self.share_of_best,
            "share_beside_scoring": self.share_beside_scoring,
        }


def need(explainer: Explainer, watcher: Watcher, work: Work) -> tuple[Need, Attribution]:
    """Run a case once, and return its minimum requirements and its result.

    Args:
        explainer: explainer with ``watcher`` among its plugins.
        watcher: records the evaluated prompts.
        work: the case to run.
    """
    watcher.reset(keeps=True)
    result = work.run(explainer)
    tree = prefix_tree(watcher.sequences)
    shape = ModelShape.of(getattr(explainer.session, "model", None))
    return Need(tree.rows, tree.nodes, optimal_flops(shape, tree, len(result.target_tokens))), result


def rate_beside(explainer: Explainer) -> float:
    """Rate of matrix products on the session's device in its dtype, or in fp32 if PyTorch lacks that dtype."""
    info = explainer.session.info
    return gemm_rate(info.device, DTYPES.get(info.dtype, DTYPES["float32"]))


def onednn_rate_beside(explainer: Explainer) -> float | None:
    """The same by oneDNN; ``None`` if it does not support such matrices."""
    info = explainer.session.info
    if info.device != "cpu" or info.dtype != "float32":
        return None
    try:
        return gemm_rate(onednn=True)
    except (AttributeError, RuntimeError, NotImplementedError):
        return None  # PyTorch was built without it


class Stopwatch:
    """Times a case, in one or several groups of runs.

    The rate of matrix products is measured before and after each group. The highest rate counts, because a disturbed
    measurement is too low.

    Args:
        explainer: explainer with ``watcher`` among its plugins, and without a cache, which would skip scoring.
        watcher: measures the time spent in the session.
        work: the case to time.
        tick: called after each run.
    """

    def __init__(
        self, explainer: Explainer, watcher: Watcher, work: Work, *, tick: Callable[[], None] = lambda: None
    ) -> None:
        self.explainer = explainer
        self.work = work
        self._watcher = watcher
        self._tick = tick
        # The first run allocates memory and starts threads, so it is used for counting and not timed.
        self.need, self.result = need(explainer, watcher, work)
        self.first_seconds = self.result.provenance.seconds
        self._first = (self.first_seconds, watcher.seconds)
        tick()
        self._runs: list[tuple[float, float]] = []
        self._rates: list[float] = []
        self._onednn_rates: list[float] = []

    def time(self, repeats: int) -> None:
        """Time a number of runs; with 0, the first run counts instead."""
        if repeats == 0:
            self._runs.append(self._first)
        self._take_rates()
        for _ in range(repeats):
            self._watcher.reset(keeps=False)
            started = time.perf_counter()
            self.result = self.work.run(self.explainer)
            self._runs.append((time.perf_counter() - started, self._watcher.seconds))
            self._tick()
        self._take_rates()

    def measured(self) -> Measured:
        """Measurements of all runs so far; at least one is required."""
        info, provenance = self.explainer.session.info, self.result.provenance
        return Measured(
            case=self.work.name,
            summary=self.work.summary,
            backend=info.backend,
            device=info.device,
            dtype=info.dtype,
            seconds=tuple(seconds for seconds, _ in self._runs),
            scoring_seconds=min(self._runs)[1],
            evaluations=provenance.evaluations,
            forwarded_tokens=provenance.forwarded_tokens,
            least_tokens=self.need.tokens,
            least_flops=self.need.flops,
            gemm_rate=max(self._rates),
            onednn_rate=max(self._onednn_rates, default=None),
        )

    def _take_rates(self) -> None:
        self._rates.append(rate_beside(self.explainer))
        if (rate := onednn_rate_beside(self.explainer)) is not None:
            self._onednn_rates.append(rate)

"""One work on one model: time, counts, and the share of what the machine could do."""

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
    """What a work takes at the least.

    Attributes:
        evaluations: distinct prompts.
        tokens: nodes of the prefix tree of prompts and target.
        flops: operations for them.
    """

    evaluations: int
    tokens: int
    flops: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one work.

    Attributes:
        case: the name of the work.
        summary: what it is.
        backend: what scored.
        device: where.
        dtype: of the weights.
        seconds: of each run, after a first one that does not count.
        scoring_seconds: of the fastest run, inside the session.
        evaluations: distinct prompts scored.
        forwarded_tokens: tokens that the model read for them, padding included.
        least_tokens: tokens of the prefix tree: what it had to read.
        least_flops: operations that these take.
        gemm_rate: operations per second in matrix products by ``torch.mm``, measured beside the runs.
        onednn_rate: the same by oneDNN, where that multiplies such matrices.
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
        """Seconds of a run."""
        return statistics.median(self.seconds)

    @property
    def floor_seconds(self) -> float:
        """What the least arithmetic takes at the rate of matrix products."""
        return self.least_flops / self.gemm_rate

    @property
    def share_of_floor(self) -> float:
        """How much of a run the least arithmetic would fill at the rate of ``torch.mm``."""
        return self.floor_seconds / self.median

    @property
    def share_of_best(self) -> float:
        """The same, if the faster of both products counts."""
        return self.share_of_floor * self.gemm_rate / max(self.gemm_rate, self.onednn_rate or 0.0)

    @property
    def share_beside_scoring(self) -> float:
        """How much of the fastest run was planning, rendering and the method's own work."""
        return 1 - self.scoring_seconds / min(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the derived ones included."""
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
    """Run a work once and count what it takes at the least; also what it gave.

    Args:
        explainer: with ``watcher`` among its plugins.
        watcher: sees what is asked.
        work: what to run.
    """
    watcher.reset(keeps=True)
    result = work.run(explainer)
    tree = prefix_tree(watcher.sequences)
    shape = ModelShape.of(getattr(explainer.session, "model", None))
    return Need(tree.rows, tree.nodes, optimal_flops(shape, tree, len(result.target_tokens))), result


def rate_beside(explainer: Explainer) -> float:
    """The rate of matrix products where and how a session computes; in fp32 where PyTorch knows no such dtype."""
    info = explainer.session.info
    return gemm_rate(info.device, DTYPES.get(info.dtype, DTYPES["float32"]))


def onednn_rate_beside(explainer: Explainer) -> float | None:
    """The same by oneDNN; ``None`` where it multiplies no such matrices."""
    info = explainer.session.info
    if info.device != "cpu" or info.dtype != "float32":
        return None
    try:
        return gemm_rate(onednn=True)
    except (AttributeError, RuntimeError, NotImplementedError):
        return None  # a PyTorch without it


class Stopwatch:
    """Times a work, some runs now and perhaps some more later; the rate of matrix products is taken around each lot.

    The highest rate counts: a machine that was disturbed while it was measured could do more.

    Args:
        explainer: with ``watcher`` among its plugins; no cache, or nothing is scored twice.
        watcher: takes the time in the session.
        work: what to time.
        tick: called after each run.
    """

    def __init__(
        self, explainer: Explainer, watcher: Watcher, work: Work, *, tick: Callable[[], None] = lambda: None
    ) -> None:
        self.explainer = explainer
        self.work = work
        self._watcher = watcher
        self._tick = tick
        # The first run pays for memory and threads; it is the one that is counted, and not timed.
        self.need, self.result = need(explainer, watcher, work)
        self.first_seconds = self.result.provenance.seconds
        self._first = (self.first_seconds, watcher.seconds)
        tick()
        self._runs: list[tuple[float, float]] = []
        self._rates: list[float] = []
        self._onednn_rates: list[float] = []

    def time(self, repeats: int) -> None:
        """Some runs; with 0, the first one counts as well."""
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
        """All runs so far, of which there must be one."""
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

"""Growth of time with features, prompt length and evaluations, and the share spent outside the model."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import apportion as ap
from apportion.benchmarking import texts
from apportion.benchmarking.measuring import Measured, Stopwatch
from apportion.benchmarking.watcher import Watcher
from apportion.benchmarking.works import Work

__all__ = ["Curve", "curves", "quickest", "slope"]

FEATURES = 64
EVALUATIONS = (128, 512, 2048)
SIZES = (16, 32, 64, 128)
LENGTHS = (64, 128, 256, 512)
KEPT_WORDS = 16
LONG = 20.0
"""If the first run takes longer than this many seconds, it is the only one."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Times along one axis.

    Attributes:
        axis: the quantity that grows.
        summary: description of the work.
        x: values of the quantity.
        points: measurements at each value.
    """

    axis: str
    summary: str
    x: tuple[int, ...]
    points: tuple[Measured, ...]


def curves(explainer: ap.Explainer, watcher: Watcher, *, repeats: int) -> Iterator[Curve]:
    """Measure time against evaluations, features and prompt length."""
    yield _curve(
        explainer, watcher, "evaluations", f"kernel SHAP of {FEATURES} words", EVALUATIONS,
        lambda n: _words(FEATURES, {"method": "kernel_shap", "budget": n}), repeats,
    )  # fmt: skip
    yield _curve(
        explainer, watcher, "features", "ablation of all words", SIZES,
        lambda n: _words(n, {"method": "ablation"}), repeats,
    )  # fmt: skip
    yield _curve(
        explainer, watcher, "words of the prompt", f"ablation of its first {KEPT_WORDS} words", LENGTHS,
        lambda n: _words(n, {"method": "ablation"}, features=KEPT_WORDS), repeats,
    )  # fmt: skip


def quickest(point: Measured) -> float:
    """Seconds of the fastest run, which was disturbed least."""
    return min(point.seconds)


def slope(curve: Curve) -> tuple[float, ...]:
    """Exponents of the growth of time between successive points; 1 means proportional."""
    pairs = list(zip(curve.x, map(quickest, curve.points), strict=True))
    return tuple(math.log(b[1] / a[1]) / math.log(b[0] / a[0]) for a, b in itertools.pairwise(pairs))


def _words(count: int, arguments: dict[str, object], features: int | None = None) -> Work:
    """A prompt of ``count`` words, all of which or only the first are features."""
    kept = () if features is None else range(features, count)
    prompt = ap.Text(texts.words(count), by="words", keep=tuple(kept))
    return Work(f"{count} words", "", lambda: prompt, texts.TARGET, arguments)


def _curve(
    explainer: ap.Explainer,
    watcher: Watcher,
    axis: str,
    summary: str,
    x: tuple[int, ...],
    work: Callable[[int], Work],
    repeats: int,
) -> Curve:
    points = []
    for n in x:
        print(f"growth: {n} {axis} …", file=sys.stderr, flush=True)
        stopwatch = Stopwatch(explainer, watcher, work(n))
        # Long runs are hardly affected by short disturbances or by being the first.
        stopwatch.time(repeats if stopwatch.first_seconds < LONG else 0)
        points.append(stopwatch.measured())
    return Curve(axis, summary, x, tuple(points))

"""Plots of the speed benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.comparing import Compared
from benchmarks.speed.growth import Curve, quickest
from matplotlib.figure import Figure

__all__ = ["draw_growth", "draw_speed"]

BLUE, ORANGE, GREY = "#4c78a8", "#f58518", "#9a9a9a"
DOTS_PER_INCH = 120


def draw_speed(compared: Sequence[Compared], path: Path) -> None:
    """Draw bars of the share of the floor for each case, and of the peers' times relative to apportion's."""
    pairs = [(case, each) for case in compared for each in case.contenders[1:] if each.seconds]
    figure = Figure(figsize=(12, 1.2 + 0.36 * max(len(compared), len(pairs))), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    shares = [100 * case.ours.share_of_floor for case in compared]
    _bars(left, [case.ours.summary for case in compared], shares, [BLUE] * len(shares), "{:.0f} %")
    left.axvline(100, color=GREY, linewidth=0.8, linestyle=":")
    left.set(title="apportion: share of the floor", xlim=(0, 118), xlabel="percent")
    ratios = [each.median / case.contenders[0].median for case, each in pairs]
    names = [f"{case.ours.case}: {each.who}" for case, each in pairs]
    colors = [GREY if each.wrong else ORANGE for _, each in pairs]
    _bars(right, names, ratios, colors, "{:.1f} ×")
    right.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    right.set(title="times apportion's time (grey: wrong)", xscale="log", xlabel="ratio")
    if ratios:
        right.set_xlim(min(0.8, *ratios), 3 * max(ratios))
    figure.savefig(path, dpi=DOTS_PER_INCH)


def draw_growth(curves: Sequence[Curve], path: Path) -> None:
    """Draw time and floor against each growing quantity, on logarithmic axes."""
    figure = Figure(figsize=(3.6 * len(curves), 3.2), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        axes.plot(curve.x, [quickest(p) for p in curve.points], "o-", color=BLUE, label="apportion")
        axes.plot(curve.x, [p.floor_seconds for p in curve.points], "s--", color=GREY, label="floor")
        axes.set(xscale="log", yscale="log", xlabel=curve.axis, ylabel="seconds", title=curve.summary)
        axes.set_xticks(curve.x, [f"{x:,}" for x in curve.x])
        axes.minorticks_off()
        axes.legend(frameon=False)
        axes.title.set_fontsize(10)
        _plain(axes)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _bars(axes: Any, names: Sequence[str], values: Sequence[float], colors: Sequence[str], form: str) -> None:
    bars = axes.barh(range(len(names)), values, color=colors, height=0.7)
    axes.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.title.set_fontsize(10)
    _plain(axes)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

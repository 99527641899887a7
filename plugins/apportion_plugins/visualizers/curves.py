"""Deletion and insertion curves of one or more evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from apportion.errors import counted
from apportion.results.evaluation import Evaluation
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, SUBTITLE, TITLE, Page, PlotFigure, height_of
from apportion_plugins.visualizers.drawing import Axes, PercentFormatter
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.labels import isolated, one_line, quotable
from apportion_plugins.visualizers.names import evaluation_names
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import hex_of

__all__ = ["curves"]

WIDTH, HEIGHT = 3.1, 2.5
SCALE, BELOW, BETWEEN = 0.62, 0.5, 0.3
SHADE = 0.14
MOST_NAMED = 24
RANDOM = "#7F7F7F"
_SOLID_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours for several evaluations: the palette of Okabe and Ito, which colour-blind readers can tell apart."""


@dataclass(frozen=True)
class Line:
    """One curve in a panel.

    Attributes:
        label: label in the legend.
        x: shares of the features.
        y: scores.
        area: value of the metric.
        colour: colour of the line.
        style: style of the line: dashed for the order that is not the panel's own, dash-dotted for random orders.
    """

    label: str
    x: Float64[np.ndarray, " C"]
    y: Float64[np.ndarray, " C"]
    area: float
    colour: str
    style: str = "-"


def curves(evaluations: Sequence[Evaluation]) -> PlotFigure:
    """Plot scores while features are removed, and while they are added, highest first and lowest first.

    Args:
        evaluations: evaluations of the same target, each with ``"deletion"``, ``"insertion"`` or both.

    Returns:
        A matplotlib figure, which notebooks display; ``figure.savefig("curves.png")`` saves it.
    """
    names = evaluation_names(evaluations)
    fonts = lettering(
        ["−…“”·∅", *names, evaluations[0].estimand, one_line(evaluations[0].target + (evaluations[0].contrast or ""))]
    )
    page = Page(fonts)
    names = [page.drawable(name) for name in names]
    panels = [
        (title, x_label, lines)
        for title, x_label, own, other in (
            ("Deletion", "features removed", "deletion", "insertion"),
            ("Insertion", "features added", "insertion", "deletion"),
        )
        if (lines := _lines(page, evaluations, names, own, other))
    ]
    _draw(page, evaluations, panels)
    return page.figure


def _lines(page: Page, evaluations: Sequence[Evaluation], names: Sequence[str], own: str, other: str) -> list[Line]:
    """Curves of one panel; its lowest-first curve is the other panel's highest-first curve in reverse."""
    alone = len(evaluations) == 1
    numbers = Numbers([one[m].value for one in evaluations for m in (own, other) if m in one.measurements])
    lines = []
    for i, (one, name) in enumerate(zip(evaluations, names, strict=True)):
        for order, metric in (("highest first", own), ("lowest first", other)):
            dashed = metric is not own
            # With several evaluations, only the panel's own order is drawn; the other panel shows the other order.
            if own not in one.measurements or metric not in one.measurements or (dashed and not alone):
                continue
            ramp = page.ramp.colour(-0.9 if dashed else 0.9)
            found = one[metric]
            x, y = (np.asarray(found.extras[key], dtype=np.float64) for key in ("shares", "scores"))
            area = f"area {numbers.plain(found.value)} {one.unit}"
            lines.append(
                Line(
                    f"{order}: {area}" if alone else f"{name}: {area}",
                    1 - x[::-1] if dashed else x,
                    y[::-1] if dashed else y,
                    found.value,
                    hex_of(ramp) if alone else _SOLID_COLOURS[i % len(_SOLID_COLOURS)],
                    "--" if dashed else "-",
                )
            )
    return [*lines, *_random_order(evaluations, own, numbers)] if lines else []


def _random_order(evaluations: Sequence[Evaluation], metric: str, numbers: Numbers) -> list[Line]:
    """The mean curve of random orders, if there are any; they are the same for all evaluations of one target."""
    for one in evaluations:
        found = one.random.get(metric)
        if found:
            x, y = (np.mean([each.extras[key] for each in found], axis=0) for key in ("shares", "scores"))
            area = one.random_value(metric)
            return [Line(f"random order: area {numbers.plain(area)} {one.unit}", x, y, area, RANDOM, "-.")]
    return []


def _draw(page: Page, evaluations: Sequence[Evaluation], panels: Sequence[tuple[str, str, Sequence[Line]]]) -> None:
    legend = max(len(lines) for *_, lines in panels) + (len(evaluations) == 1)
    wide = max(page.width_of([line.label for line in lines], NOTE) for *_, lines in panels) + 0.45
    panel = max(WIDTH, wide)
    width = 3 * MARGIN + len(panels) * (SCALE + panel) + (len(panels) - 1) * BETWEEN
    title = _header(page, evaluations, width - 2 * MARGIN)
    top = parts.header_height(title) + height_of(1, SUBTITLE) + 0.05
    under = height_of(legend, NOTE) * 1.25
    note = "Areas are measured from the score without features (dotted)."
    orders = max((len(some) for one in evaluations for some in one.random.values()), default=0)
    if orders:
        note += f" Random order: the mean over {orders} random orders of the features."
    if len(evaluations) == 1 and len(panels) == 2:
        note += " Removing the lowest first is adding the highest first in reverse."
    notes = page.wrapped(note, width - 2 * MARGIN, NOTE)
    page.resize(width, top + HEIGHT + BELOW + under + parts.notes_height(notes))
    everything = np.concatenate([line.y for *_, lines in panels for line in lines])
    margin = 0.05 * float(np.ptp(everything)) or 1.0
    for i, (name, x_label, lines) in enumerate(panels):
        left = MARGIN + SCALE + i * (SCALE + panel + BETWEEN)
        axes = page.axes(left, top, panel, HEIGHT)
        axes.set_ylim(float(everything.min()) - margin, float(everything.max()) + margin)
        empty = lines[0].y[-1] if name == "Deletion" else lines[0].y[0]
        _fill(axes, lines, float(empty), evaluations[0].unit, alone=len(evaluations) == 1)
        parts.plain_axes(page, axes, x_label)
        axes.set_title(name, loc="left", **page.style(SUBTITLE), weight="bold")
        if i == 0:
            axes.set_ylabel(f"score of the target ({evaluations[0].unit})", **page.style(parts.LABEL))
        below = page.axes(left, top + HEIGHT + BELOW, panel, under)
        below.axis("off")
        handles, labels = axes.get_legend_handles_labels()
        font = {key: value for key, value in page.style(NOTE).items() if key in ("family", "size")}
        below.legend(
            handles, labels, loc="upper left", borderaxespad=0, borderpad=0, frameon=False, handlelength=2.2, prop=font
        )
    parts.draw_header(page, title)
    parts.draw_notes(page, notes, top + HEIGHT + BELOW + under)


def _fill(axes: Axes, lines: Sequence[Line], empty: float, unit: str, *, alone: bool) -> None:
    """Draw the curves, the score without features, and, for a single evaluation, the area between both orders."""
    ink = axes.spines["left"].get_edgecolor()
    few = len(lines[0].x) <= MOST_NAMED
    for line in lines:
        width = 1.8 if line.style == "-" else 1.3
        (drawn,) = axes.plot(line.x, line.y, line.style, label=line.label, color=line.colour, linewidth=width)
        drawn.set(marker="o" if few and line.style != "-." else "", markersize=2.8)
    orders = [line for line in lines if line.style != "-."]
    if alone and len(orders) == 2:
        x = np.union1d(orders[0].x, orders[1].x)
        y = [np.interp(x, line.x, line.y) for line in orders]
        area = abs(orders[0].area - orders[1].area)
        text = f"area between: {Numbers([area]).plain(area)} {unit}"
        axes.fill_between(x, *y, color=ink, alpha=SHADE, linewidth=0, label=text)
    axes.axhline(empty, color=ink, linewidth=0.9, linestyle=":")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(axis="y", labelsize=NOTE)
    axes.grid(axis="y", linewidth=0.5, alpha=0.35)


def _header(page: Page, evaluations: Sequence[Evaluation], room: float) -> list[str]:
    one = evaluations[0]
    title = f"{one.estimand} ({one.method})" if len(evaluations) == 1 else f"{len(evaluations)} attributions compared"
    target = f"Target: “{isolated(quotable(one.target))}”"
    if one.contrast is not None:
        target += f" against “{isolated(quotable(one.contrast))}”"
    return [
        page.fitted(page.drawable(one_line(title)), room, TITLE),
        *page.wrapped(target, room, SUBTITLE, most=2),
        *page.wrapped(f"{counted(one.n_features, 'feature')}, in the order of their attribution.", room, SUBTITLE),
    ]

"""Deletion and insertion curves of one or more evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion.errors import counted
from apportion.results.evaluation import Evaluation
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, SUBTITLE, Page, drawn, height_of
from apportion_plugins.visualizers.drawing import Axes, PercentFormatter, rcParams
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.header import Header, made_header
from apportion_plugins.visualizers.labels import isolated, one_line, quotable
from apportion_plugins.visualizers.look import Look
from apportion_plugins.visualizers.names import evaluation_names
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.palette import hex_of
from apportion_plugins.visualizers.plot_figure import PlotFigure

__all__ = ["curves"]

WIDTH, NARROW = 3.1, 0.95
HEIGHT, LOW, LEAST_HEIGHT = 2.5, 1.8, 1.1
HANDLE = 0.45
SCALE, BELOW, BETWEEN = 0.62, 0.5, 0.3
SHADE = 0.14
MOST_NAMED = 24
RANDOM = "#7F7F7F"
_SOLID_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours for several evaluations: the palette of Okabe and Ito, which colour-blind readers can tell apart."""
_SOLID_STYLES = ("-", "--", ":")
"""Styles of lines for as many evaluations as there are colours each."""


@dataclass(frozen=True)
class Line:
    """One curve in a panel.

    Attributes:
        name: name in the legend.
        stated: its area with the unit, for the legend; empty for short labels.
        x: shares of the features.
        y: scores.
        area: value of the metric.
        colour: colour of the line.
        style: style of the line: dash-dotted for random orders. Of a single evaluation, dashed for the order that is
            not the panel's own; of several, another one once all colours are taken.
    """

    name: str
    stated: str
    x: Float64[np.ndarray, " C"]
    y: Float64[np.ndarray, " C"]
    area: float
    colour: str
    style: str = "-"

    @property
    def label(self) -> str:
        """Label in the legend of one panel."""
        return self.name + (f": area {self.stated}" if self.stated else "")


Panel = tuple[str, str, Sequence[Line]]
"""Title, label of the horizontal axis, and curves."""


@dataclass(frozen=True)
class _Panels:
    """Widths of the panels, which stand side by side.

    Attributes:
        width: width of one, in inches.
        step: distance from the left edge of one to that of the next.
        shared: they have one legend and one vertical axis, because the width that the user chose has room for no more.
    """

    width: float
    step: float
    shared: bool


def curves(evaluations: Sequence[Evaluation], look: Look) -> PlotFigure:
    """Plot scores while features are removed, and while they are added, highest first and lowest first.

    Args:
        evaluations: evaluations of the same target, each with ``"deletion"``, ``"insertion"`` or both.
        look: the options of the user; short labels are without the areas.

    Returns:
        A matplotlib figure, which notebooks display; ``figure.savefig("curves.png")`` saves it.
    """
    names = evaluation_names(evaluations)
    one = evaluations[0]
    fonts = lettering(
        ["−…“”·∅", look.title or "", *names, one.estimand, one_line(one.target), one_line(one.contrast or "")]
    )

    def layout(page: Page) -> None:
        shown = [page.drawable(name) for name in names]
        panels = [
            (title, x_label, lines)
            for title, x_label, own, other in (
                ("Deletion", "features removed", "deletion", "insertion"),
                ("Insertion", "features added", "insertion", "deletion"),
            )
            if (lines := _lines(page, evaluations, shown, own, other))
        ]
        _draw(page, evaluations, panels)

    return drawn(look, fonts, layout)


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
            lines.append(
                Line(
                    order if alone else name,
                    "" if page.look.short else f"{numbers.plain(found.value)} {one.unit}",
                    1 - x[::-1] if dashed else x,
                    y[::-1] if dashed else y,
                    found.value,
                    hex_of(ramp) if alone else _SOLID_COLOURS[i % len(_SOLID_COLOURS)],
                    "--" if dashed else _SOLID_STYLES[i // len(_SOLID_COLOURS) % len(_SOLID_STYLES)],
                )
            )
    return [*lines, *_random_order(page, evaluations, own, numbers)] if lines else []


def _random_order(page: Page, evaluations: Sequence[Evaluation], metric: str, numbers: Numbers) -> list[Line]:
    """The mean curve of random orders, if there are any; they are the same for all evaluations of one target."""
    for one in evaluations:
        found = one.random.get(metric)
        if found:
            x, y = (np.mean([each.extras[key] for each in found], axis=0) for key in ("shares", "scores"))
            area = one.random_value(metric)
            stated = "" if page.look.short else f"{numbers.plain(area)} {one.unit}"
            return [Line("random order", stated, x, y, area, RANDOM, "-.")]
    return []


def _draw(page: Page, evaluations: Sequence[Evaluation], panels: Sequence[Panel]) -> None:
    at = _panels(page, panels)
    width = page.room or _around(len(panels), BETWEEN + SCALE) + len(panels) * at.width
    header = _header(page, evaluations, width)
    entries = len({line.name for *_, lines in panels for line in lines}) + (len(evaluations) == 1)
    above, under = height_of(1, SUBTITLE) + 0.05, height_of(entries, NOTE) * 1.25
    notes = parts.wrapped_notes(page, [_note(evaluations, panels, shared=at.shared)], width)
    rest = header.height + parts.notes_height(notes)
    natural = LOW if at.shared else HEIGHT
    row = page.row_height(1, above + natural + BELOW + under, above + LEAST_HEIGHT + BELOW + under, rest)
    page.resize(width, rest + row)
    top, height = header.height + above, row - above - BELOW - under
    drawn_axes = []
    for i, shown in enumerate(panels):
        axes = page.axes(MARGIN + SCALE + i * at.step, top, at.width, height)
        _draw_panel(page, axes, evaluations, panels, shown)
        drawn_axes.append(axes)
    drawn_axes[0].set_ylabel(_score_label(page, evaluations[0], height), **page.style(parts.LABEL))
    if at.shared:
        for axes in drawn_axes[1:]:
            axes.tick_params(axis="y", labelleft=False, length=0)
        for axes in drawn_axes:
            axes.set_xticks([0.0, 0.5, 1.0])
        below = page.axes(MARGIN, top + height + BELOW, width - 2 * MARGIN, under)
        _draw_legend(page, below, _shared_legend(panels, drawn_axes))
    else:
        for i, axes in enumerate(drawn_axes):
            below = page.axes(MARGIN + SCALE + i * at.step, top + height + BELOW, at.width, under)
            handles, labels = axes.get_legend_handles_labels()
            _draw_legend(page, below, dict(zip(labels, handles, strict=True)))
    header.draw(page)
    parts.draw_notes(page, notes, header.height + row)


def _note(evaluations: Sequence[Evaluation], panels: Sequence[Panel], *, shared: bool) -> str:
    """The note below the panels."""
    note = "Areas are measured from the score without features (dotted)"
    note += f": first {panels[0][0].lower()}, then {panels[1][0].lower()}." if shared else "."
    orders = max((len(some) for one in evaluations for some in one.random.values()), default=0)
    if orders:
        note += f" Random order: the mean over {orders} random orders of the features."
    if len(evaluations) == 1 and len(panels) == 2:
        note += " Removing the lowest first is adding the highest first in reverse."
    return note


def _score_label(page: Page, one: Evaluation, height: float) -> str:
    """Label of the vertical axis: what is scored, if its name fits the height in inches."""
    label = f"{one_line(one.scored) if one.scored else 'score of the target'} ({one.unit})"
    return label if page.width_of([label], parts.LABEL) <= height else f"score ({one.unit})"


def _panels(page: Page, panels: Sequence[Panel]) -> _Panels:
    """The widths of the panels; if the user chose a small width, they share legend and vertical axis."""
    least = max(page.width_of([line.label for line in lines], NOTE) for *_, lines in panels) + HANDLE
    n, apart = len(panels), BETWEEN + SCALE
    if page.room is None:
        return _Panels(max(WIDTH, least), max(WIDTH, least) + apart, shared=False)
    if n == 1:
        page.need_width(_around(1, apart) + least)
    if page.room >= _around(n, apart) + n * least:
        width = (page.room - _around(n, apart)) / n
        return _Panels(width, width + apart, shared=False)
    legend = page.width_of(list(_shared_labels(panels).values()), NOTE) + HANDLE + 2 * MARGIN
    page.need_width(max(legend, _around(n, BETWEEN) + n * NARROW))
    width = (page.room - _around(n, BETWEEN)) / n
    return _Panels(width, width + BETWEEN, shared=True)


def _around(panels: int, apart: float) -> float:
    """Width in inches of all that is not a panel."""
    return 3 * MARGIN + SCALE + (panels - 1) * apart


def _shared_labels(panels: Sequence[Panel]) -> dict[str, str]:
    """For each name its label in the legend of all panels, with the areas in the order of the panels."""
    stated: dict[str, dict[str, None]] = {}
    for *_, lines in panels:
        for line in lines:
            stated.setdefault(line.name, {})[line.stated] = None
    return {
        name: name + (f": area{'s' if len(areas) > 1 else ''} {', '.join(areas)}" if any(areas) else "")
        for name, areas in stated.items()
    }


def _shared_legend(panels: Sequence[Panel], drawn_axes: Sequence[Axes]) -> dict[str, Any]:
    """The handle of each label in the legend of all panels."""
    labels = _shared_labels(panels)
    found: dict[str, Any] = {}
    for (*_, lines), axes in zip(panels, drawn_axes, strict=True):
        names = {line.label: line.name for line in lines}
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            # The area between both orders is the same in each panel, and no line.
            found.setdefault(labels[names[label]] if label in names else label, handle)
    return found


def _draw_panel(
    page: Page,
    axes: Axes,
    evaluations: Sequence[Evaluation],
    panels: Sequence[Panel],
    shown: Panel,
) -> None:
    name, x_label, lines = shown
    everything = np.concatenate([line.y for *_, lines in panels for line in lines])
    margin = 0.05 * float(np.ptp(everything)) or 1.0
    axes.set_ylim(float(everything.min()) - margin, float(everything.max()) + margin)
    empty = lines[0].y[-1] if name == "Deletion" else lines[0].y[0]
    _fill(page, axes, lines, float(empty), evaluations[0].unit, alone=len(evaluations) == 1)
    parts.plain_axes(page, axes, x_label)
    axes.set_title(name, loc="left", **page.style(SUBTITLE), weight="bold")


def _draw_legend(page: Page, below: Axes, entries: dict[str, Any]) -> None:
    """Draw a legend, the handle of each label, into the axes below the panels."""
    below.axis("off")
    font = {key: value for key, value in page.style(NOTE).items() if key in ("family", "size")}
    below.legend(
        list(entries.values()),
        list(entries),
        loc="upper left",
        borderaxespad=0,
        borderpad=0,
        frameon=False,
        handlelength=2.2,
        prop=font,
    )


def _fill(page: Page, axes: Axes, lines: Sequence[Line], empty: float, unit: str, *, alone: bool) -> None:
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
        text = "area between" + ("" if page.look.short else f": {Numbers([area]).plain(area)} {unit}")
        axes.fill_between(x, *y, color=page.faded(ink, SHADE), linewidth=0, label=text, zorder=0)
    axes.axhline(empty, color=ink, linewidth=0.9, linestyle=":")
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(axis="y", labelsize=page.points(NOTE))
    axes.grid(axis="y", linewidth=0.5, color=page.faded(rcParams["grid.color"], 0.35))


def _header(page: Page, evaluations: Sequence[Evaluation], width: float) -> Header:
    one = evaluations[0]
    title = f"{one.estimand} ({one.method})" if len(evaluations) == 1 else f"{len(evaluations)} attributions compared"
    target = f"Target: “{isolated(quotable(one.target))}”"
    if one.contrast is not None:
        target += f" against “{isolated(quotable(one.contrast))}”"

    def lines(inner: float) -> list[str]:
        return [
            *page.wrapped(target, inner, SUBTITLE, most=2),
            *(page.wrapped(f"Score: {one_line(one.scored)} ({one.unit}).", inner, SUBTITLE) if one.scored else []),
            *page.wrapped(f"{counted(one.n_features, 'feature')}, in the order of their attribution.", inner, SUBTITLE),
        ]

    return made_header(page, width, one_line(title), lines)

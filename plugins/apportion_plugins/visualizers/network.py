"""Interactions drawn over the prompt, as curves between its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import MARGIN, NOTE, Page, drawn
from apportion_plugins.visualizers.drawing import Axes, FancyBboxPatch, PathPatch, rcParams
from apportion_plugins.visualizers.edges import HEIGHT, Curve, line_tops, routed
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.grid import SCALE, draw_scale
from apportion_plugins.visualizers.header import header_of
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.pairs import Pairs, interval_notes, pairs_of, reading
from apportion_plugins.visualizers.palette import colour_limit, hex_of, strengths, text_on
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import check_limit, left_out, ranked
from apportion_plugins.visualizers.text_layout import SIZE, Box, first_boxes, laid_out

__all__ = ["Network"]

LINE, WIDTH = 7.0, 6.4
KEY, KEY_INDENT, KEY_LEFT, SAMPLE = 0.62, 0.2, 0.45, 0.4
THIN, THICK = 0.7, 5.0
STRENGTH = 0.8
MOST_EDGES = 20_000


class Network:
    """The prompt with features coloured by first-order values, and curves for their interactions."""

    def render(
        self,
        attribution: Attribution,
        *,
        token: int | None = None,
        edges: int | None = 12,
        title: str | None = AUTO,
        labels: str = "full",
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw the strongest interactions of a result of ``method="interactions"``.

        Args:
            attribution: the result.
            token: position of a target token to show; ``None`` for the whole target.
            edges: maximum number of curves, for the pairs of largest magnitude; ``None`` for all.
            title: text above the figure; ``"auto"`` for estimand, target and model, ``None`` for none.
            labels: ``"full"`` for the texts of the features, ``"short"`` for their names.
            size: width and height in inches, such as ``(6.5, 4)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("network.png")`` saves it.

        Raises:
            ResultError: the result has no interactions.
            InputError: there is no such token, an option is out of range, there would be too many features or curves,
                or they do not fit ``size``.
        """
        look = Look(title, labels, size, dpi)
        pairs = pairs_of(attribution, token)
        n = len(attribution.features)
        check_limit("The number of features", n, parts.MOST_ROWS)
        check_limit("edges", max(1, n * (n - 1) // 2) if edges is None else edges, MOST_EDGES)
        names = [segment.text for segment in attribution.segments]
        fonts = lettering([*parts.figure_texts(attribution, title), *names, pairs.part])
        first, second = np.triu_indices(n, 1)
        values = pairs.matrix[first, second]
        # From weak to strong, so that strong ones are drawn on top.
        shown = [k for k in ranked(values)[:edges] if values[k] and np.isfinite(values[k])][::-1]
        curves = [((int(first[k]), int(second[k])), float(values[k])) for k in shown]
        notes = [
            *left_out(values, shown, "pairs", "edges", "|interaction|"),
            *_repeats(attribution),
            *interval_notes(pairs),
            *fonts.notes,
        ]

        def layout(page: Page) -> None:
            room = LINE if page.room is None else page.room - 2 * MARGIN
            _draw(_Picture(attribution, pairs, page, laid_out(attribution, page, room), curves), notes)

        return drawn(look, fonts, layout)


@dataclass(frozen=True)
class _Picture:
    attribution: Attribution
    pairs: Pairs
    page: Page
    boxes: list[Box]
    edges: list[tuple[tuple[int, int], float]]

    @property
    def limit(self) -> float:
        """Magnitude that gets the widest curve."""
        return colour_limit(np.array([value for _, value in self.edges]))


def _repeats(attribution: Attribution) -> list[str]:
    """A note if a feature occurs in several places."""
    places = [segment.feature for segment in attribution.segments if segment.feature is not None]
    if len(places) == len(set(places)):
        return []
    return ["If a feature occurs in several places, its curves start at the first; all places have its colour."]


def _draw(picture: _Picture, notes: list[str]) -> None:
    page, attribution, pairs = picture.page, picture.attribution, picture.pairs
    at = first_boxes(picture.boxes)
    tops = line_tops(picture.boxes, at, [pair for pair, _ in picture.edges])
    width = page.room or max(WIDTH, max(box.left + box.width for box in picture.boxes) + 2 * MARGIN)
    key = KEY if width >= WIDTH or not picture.edges else 2 * KEY
    page.need_width(2 * MARGIN + KEY_INDENT + SCALE + 0.2)
    about = {"title": pairs.index, "reading": reading(attribution), "part": pairs.part}
    header, lines = header_of(attribution, page, width, **about), parts.wrapped_notes(page, notes, width)
    rest, natural = header.height + key + parts.notes_height(lines), tops[-1] + HEIGHT + 0.06
    body = page.row_height(1, natural, natural, rest)
    # What the user's height leaves is room between the lines.
    tops = [top + (body - natural) * (i + 0.5) / len(tops) for i, top in enumerate(tops)]
    page.resize(width, rest + body)
    axes = _inches(page, MARGIN, header.height, width - 2 * MARGIN, body)
    _draw_curves(picture, axes, routed(picture.boxes, at, tops, picture.edges))
    _draw_boxes(picture, axes, tops)
    _draw_key(picture, width, header.height + body)
    header.draw(page)
    parts.draw_notes(page, lines, header.height + body + key)


def _inches(page: Page, left: float, top: float, width: float, height: float) -> Axes:
    """Blank axes with one unit per inch, downwards."""
    axes = page.axes(left, top, width, height)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    return axes


def _width(picture: _Picture, value: float) -> float:
    return THIN + (THICK - THIN) * abs(value) / picture.limit


def _colour(picture: _Picture, value: float) -> str:
    return picture.page.faded(hex_of(picture.page.ramp.colour(STRENGTH if value > 0 else -STRENGTH)), 0.85)


def _draw_curves(picture: _Picture, axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        line = {"edgecolor": _colour(picture, curve.value), "linewidth": _width(picture, curve.value)}
        axes.add_patch(PathPatch(curve.path, facecolor="none", capstyle="round", clip_on=False, **line))


def _draw_boxes(picture: _Picture, axes: Axes, tops: Sequence[float]) -> None:
    page = picture.page
    strength = strengths(picture.pairs.values)
    ground = picture.page.figure.get_facecolor()
    for box in picture.boxes:
        top = tops[box.line]
        style = page.style(SIZE) | {"ha": "center", "va": "center"}
        place = (box.centre, top + HEIGHT / 2)
        if box.feature is None:
            axes.add_patch(FancyBboxPatch((box.left, top), box.width, HEIGHT, "square,pad=0", fc=ground, ec="none"))
            axes.text(*place, box.text, color=page.faded(rcParams["text.color"], 0.75), **style)
            continue
        colour = page.ramp.colour(float(strength[box.feature]))
        edge = hex_of(page.ramp.colour(float("nan")))
        shape = f"round,pad=0,rounding_size={min(0.06, box.width / 3)}"
        patch = FancyBboxPatch((box.left, top), box.width, HEIGHT, shape, fc=hex_of(colour), ec=edge, lw=0.5)
        axes.add_patch(patch)
        axes.text(*place, box.text, color=hex_of(text_on(colour)), **style)


def _draw_key(picture: _Picture, width: float, top: float) -> None:
    """Draw the legend of colours and widths."""
    page, unit = picture.page, picture.attribution.unit
    left = MARGIN + KEY_INDENT
    scale = page.axes(left, top + 0.18, SCALE, 0.1)
    draw_scale(page, scale, colour_limit(picture.pairs.values), f"box: {picture.attribution.estimand} ({unit})")
    if not picture.edges:
        return
    left, top = (left + SCALE + KEY_LEFT, top) if width >= WIDTH else (left, top + KEY)
    axes = _inches(page, left, top, width - left - MARGIN, KEY)
    numbers = Numbers([picture.limit], digits=2)
    x, samples = 0.0, [sign * part * picture.limit for sign in (-1, 1) for part in ((1, 0.5) if sign < 0 else (0.5, 1))]
    for value in samples:
        style: dict[str, Any] = {"color": _colour(picture, value), "linewidth": _width(picture, value)}
        axes.plot([x, x + SAMPLE], [0.23, 0.23], solid_capstyle="round", clip_on=False, **style)
        text = {"ha": "center", "va": "center"}
        axes.text(x + SAMPLE / 2, 0.375, numbers.signed(value), **(page.style(NOTE) | text))
        x += 2 * SAMPLE
    middle = (x - SAMPLE) / 2
    axes.text(
        middle, 0.53, f"curve: interaction ({unit})", **(page.style(parts.LABEL) | {"ha": "center", "va": "center"})
    )

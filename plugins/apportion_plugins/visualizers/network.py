"""Interactions drawn over the prompt, as curves between its features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import MARGIN, Page, drawn
from apportion_plugins.visualizers.drawing import Axes, PathPatch
from apportion_plugins.visualizers.edges import HEIGHT, Curve, line_tops, routed
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.grid import SCALE, draw_scale
from apportion_plugins.visualizers.header import header_of
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.pairs import Pairs, interval_notes, pairs_of, reading
from apportion_plugins.visualizers.palette import colour_limit, strengths
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import check_limit, left_out, ranked
from apportion_plugins.visualizers.strokes import KEY, Strokes
from apportion_plugins.visualizers.text_boxes import draw_boxes
from apportion_plugins.visualizers.text_layout import Box, first_boxes, laid_out

__all__ = ["Network"]

LINE, WIDTH = 7.0, 6.4
KEY_INDENT, KEY_LEFT = 0.2, 0.45
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
    axes = parts.blank_axes(page, MARGIN, header.height, width - 2 * MARGIN, body)
    strokes = Strokes(page, [value for _, value in picture.edges])
    _draw_curves(axes, strokes, routed(picture.boxes, at, tops, picture.edges))
    strength = strengths(pairs.values)
    colours = {feature: page.ramp.colour(float(strength[feature])) for feature in at}
    draw_boxes(page, axes, picture.boxes, tops, colours)
    _draw_key(picture, strokes, width, header.height + body)
    header.draw(page)
    parts.draw_notes(page, lines, header.height + body + key)


def _draw_curves(axes: Axes, strokes: Strokes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        line = {"edgecolor": strokes.colour(curve.value), "linewidth": strokes.width(curve.value)}
        axes.add_patch(PathPatch(curve.path, facecolor="none", capstyle="round", clip_on=False, **line))


def _draw_key(picture: _Picture, strokes: Strokes, width: float, top: float) -> None:
    """Draw the legend of colours and widths."""
    page, unit = picture.page, picture.attribution.unit
    left = MARGIN + KEY_INDENT
    scale = page.axes(left, top + 0.18, SCALE, 0.1)
    draw_scale(page, scale, colour_limit(picture.pairs.values), f"box: {picture.attribution.estimand} ({unit})")
    if not picture.edges:
        return
    left, top = (left + SCALE + KEY_LEFT, top) if width >= WIDTH else (left, top + KEY)
    strokes.draw_key(left, top, width - left - MARGIN, f"curve: interaction ({unit})")

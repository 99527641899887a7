"""Curves between boxes of text: above a line, and from line to line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from apportion_plugins.visualizers.drawing import Path
from apportion_plugins.visualizers.text_layout import Box

__all__ = ["CROSSING", "HEIGHT", "Curve", "Point", "down", "gaps_between", "line_tops", "routed"]

HEIGHT = 0.27
"""Height of a box."""
TIGHT = 0.1
CROSSING = 0.6
"""Least height between lines of boxes, for curves that go down."""
LOWEST, RISE = 0.14, 0.16
BESIDE = 0.05
"""Distance from the ends of a line to curves that pass it."""
PORTS = 0.7
"""Share of a box's width where curves may end."""

Point = tuple[float, float]
_CURVE = (Path.CURVE4, Path.CURVE4, Path.CURVE4)


@dataclass(frozen=True)
class Curve:
    """A curve between two boxes.

    Attributes:
        pair: indices of its features.
        value: their interaction.
        path: path in inches, downwards.
    """

    pair: tuple[int, int]
    value: float
    path: Path


def line_tops(boxes: Sequence[Box], at: Mapping[int, Box], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Top of each line of boxes, with room above for the curves."""
    gaps: dict[int, float] = defaultdict(lambda: TIGHT)
    for i, j in pairs:
        upper, lower = sorted((at[i], at[j]), key=lambda box: box.line)
        if upper.line == lower.line:
            gaps[upper.line] = max(gaps[upper.line], _height(upper.centre, lower.centre) + TIGHT)
        for line in (upper.line + 1, lower.line) if upper.line < lower.line else ():
            gaps[line] = max(gaps[line], CROSSING)
    tops, y = [], 0.0
    for line in range(max((box.line for box in boxes), default=0) + 1):
        y += gaps[line]
        tops.append(y)
        y += HEIGHT
    return tops


def routed(
    boxes: Sequence[Box],
    at: Mapping[int, Box],
    tops: Sequence[float],
    edges: Sequence[tuple[tuple[int, int], float]],
) -> list[Curve]:
    """A curve for each pair of features and its value; the ends on one side of a box are spread out."""
    ports = _ports(at, [pair for pair, _ in edges])
    gaps = gaps_between(boxes)
    curves = []
    for (i, j), value in edges:
        a, b = sorted((i, j), key=lambda k: (at[k].line, at[k].left))
        start, end = (ports[a, b], tops[at[a].line]), (ports[b, a], tops[at[b].line])
        if at[a].line == at[b].line:
            path = _over(start, end, _height(at[a].centre, at[b].centre))
        else:
            crossed = [(gaps[line], tops[line]) for line in range(at[a].line + 1, at[b].line)]
            path = down((start[0], start[1] + HEIGHT), end, crossed)
        curves.append(Curve((i, j), value, path))
    return curves


def _over(start: Point, end: Point, height: float) -> Path:
    """A curve above a line."""
    # Its top is three quarters of the way to its control points.
    bend = start[1] - height * 4 / 3
    return Path([start, (start[0], bend), (end[0], bend), end], [Path.MOVETO, *_CURVE])


def down(start: Point, end: Point, lines: Sequence[tuple[Sequence[float], float]]) -> Path:
    """A curve downwards, which starts and ends vertically.

    Args:
        start: its start.
        end: its end.
        lines: gaps and tops of the lines of boxes that it crosses.
    """
    points, codes = [start], [Path.MOVETO]
    for gaps, top in lines:
        straight = start[0] + (end[0] - start[0]) * (top - start[1]) / (end[1] - start[1])
        x = min(gaps, key=lambda gap: abs(gap - straight))
        points += [*_bent(points[-1], (x, top)), (x, top + HEIGHT)]
        codes += [*_CURVE, Path.LINETO]
    return Path([*points, *_bent(points[-1], end)], [*codes, *_CURVE])


def _bent(start: Point, end: Point) -> list[Point]:
    """Points after ``start`` of a curve that starts and ends vertically."""
    middle = (start[1] + end[1]) / 2
    return [(start[0], middle), (end[0], middle), end]


def gaps_between(boxes: Sequence[Box]) -> dict[int, list[float]]:
    """Positions where each line can be crossed: between its boxes, and at its ends."""
    lines: dict[int, list[Box]] = defaultdict(list)
    for box in sorted(boxes, key=lambda box: box.left):
        lines[box.line].append(box)
    return {
        line: [
            row[0].left - BESIDE,
            *((a.left + a.width + b.left) / 2 for a, b in pairwise(row)),
            row[-1].left + row[-1].width + BESIDE,
        ]
        for line, row in lines.items()
    }


def _height(x1: float, x2: float) -> float:
    """Height of a curve above a line; longer ones are higher, so that nested curves do not touch."""
    return LOWEST + RISE * abs(x1 - x2)


def _ports(at: Mapping[int, Box], pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Position where the curve between two features leaves the first, spread so that curves do not cross."""
    sides: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for i, j in pairs:
        for own, other in ((i, j), (j, i)):
            sides[own, at[other].line > at[own].line].append(other)
    found = {}
    for (own, _below), others in sides.items():
        box = at[own]
        for rank, other in enumerate(sorted(others, key=lambda k: _order(box, at[k]))):
            share = (rank + 0.5) / len(others) - 0.5
            found[own, other] = box.centre + share * PORTS * box.width
    return found


def _order(box: Box, other: Box) -> tuple[int, float]:
    """Sort key of the ends on a box, from left to right; on the same line, curves nest."""
    if box.line != other.line:
        return (1, other.centre) if other.centre >= box.centre else (-1, other.centre)
    return (-2, -other.centre) if other.centre < box.centre else (2, -other.centre)

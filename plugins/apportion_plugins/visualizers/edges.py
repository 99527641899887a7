"""Curves between boxes of text: over a line, and from line to line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.path import Path

from apportion_plugins.visualizers.text_layout import Box

__all__ = ["HEIGHT", "Curve", "line_tops", "routed"]

HEIGHT = 0.27
"""Of a box."""
TIGHT = 0.1
CROSSING = 0.6
LOWEST, RISE = 0.14, 0.16
PORTS = 0.7
"""The part of a box's width where curves may end."""


@dataclass(frozen=True)
class Curve:
    """A curve between two boxes.

    Attributes:
        pair: the positions of its features.
        value: of their interaction.
        path: in inches, downwards.
    """

    pair: tuple[int, int]
    value: float
    path: Path


def line_tops(boxes: Sequence[Box], at: Mapping[int, Box], pairs: Sequence[tuple[int, int]]) -> list[float]:
    """The top of each line of boxes, with room above for the curves."""
    gaps = defaultdict(lambda: TIGHT)
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


def routed(at: Mapping[int, Box], tops: Sequence[float], edges: Sequence[tuple[tuple[int, int], float]]) -> list[Curve]:
    """A curve for each pair of features and its value; ends on one side of a box stand side by side."""
    ports = _ports(at, [pair for pair, _ in edges])
    curves = []
    for (i, j), value in edges:
        a, b = sorted((i, j), key=lambda k: (at[k].line, at[k].left))
        x1, x2 = ports[a, b], ports[b, a]
        y1, y2 = tops[at[a].line], tops[at[b].line]
        if at[a].line == at[b].line:
            # The top of such a curve is three quarters of the way to the points that it bends towards.
            bend1 = bend2 = y1 - _height(at[a].centre, at[b].centre) * 4 / 3
        else:
            y1 += HEIGHT
            reach = max(CROSSING, y2 - y1) / 2
            bend1, bend2 = y1 + reach, y2 - reach
        codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
        curves.append(Curve((i, j), value, Path([(x1, y1), (x1, bend1), (x2, bend2), (x2, y2)], codes)))
    return curves


def _height(x1: float, x2: float) -> float:
    """Of a curve over a line: the longer, the higher, so that curves that nest do not touch."""
    return LOWEST + RISE * abs(x1 - x2)


def _ports(at: Mapping[int, Box], pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """Where the curve between two features leaves the first, spread over its width so that curves do not cross."""
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
    """From left to right: on the same line, the farther to the left the nearer, for curves nest."""
    if box.line != other.line:
        return (1, other.centre) if other.centre >= box.centre else (-1, other.centre)
    return (-2, -other.centre) if other.centre < box.centre else (2, -other.centre)

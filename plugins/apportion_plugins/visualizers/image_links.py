"""Interactions as lines from regions of pictures to words, and to other regions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.drawing import Axes, Path, PathPatch, to_rgba
from apportion_plugins.visualizers.edges import Point, down, gaps_between
from apportion_plugins.visualizers.pairs import Pairs, interval_notes, reading
from apportion_plugins.visualizers.selection import left_out, ranked
from apportion_plugins.visualizers.strokes import Strokes
from apportion_plugins.visualizers.text_layout import Box

__all__ = ["Link", "draw_links", "strongest_links"]

Link = tuple[tuple[int, int], float]
"""Two features and their interaction."""
BEND = 0.16
"""Height of the arc between two regions, relative to their distance."""
PORTS = 0.6
"""Share of a word's width where lines may end."""
HALO = 1.6
"""Width in points of the light line on each side."""
DOT = 3.2
"""Least size in points of the dots in regions."""


def strongest_links(
    attribution: Attribution, pairs: Pairs, regions: Collection[int], words: Collection[int], most: int
) -> tuple[list[Link], list[str]]:
    """The strongest interactions of regions with words and with each other, the weakest first, and notes.

    Args:
        attribution: the result.
        pairs: the interactions.
        regions: regions that are shown.
        words: other features that are shown.
        most: maximum number of interactions.
    """
    inside = set(regions)
    ends = [pair for pair in combinations(sorted({*regions, *words}), 2) if inside.intersection(pair)]
    values = np.array([pairs.matrix[pair] for pair in ends], dtype=np.float64)
    shown = [k for k in ranked(values)[:most] if values[k] and np.isfinite(values[k])][::-1]
    notes = [
        f"Lines: {pairs.index}. {reading(attribution)}",
        *left_out(values, shown, "pairs with a region" if words else "pairs of regions", "", "|interaction|"),
        *interval_notes(pairs),
    ]
    return [(ends[k], float(values[k])) for k in shown], notes


def draw_links(
    axes: Axes,
    strokes: Strokes,
    links: Sequence[Link],
    centres: Mapping[int, Point],
    boxes: Sequence[Box],
    tops: Sequence[float],
) -> None:
    """Draw lines in axes of one unit per inch.

    Args:
        axes: the axes.
        strokes: widths and colours.
        links: the interactions, the weakest first.
        centres: a point in each region.
        boxes: the boxes of the words.
        tops: upper edge of each line of boxes.
    """
    ground = axes.figure.get_facecolor() if to_rgba(axes.figure.get_facecolor())[3] else "#ffffff"
    gaps, ports = gaps_between(boxes), _ports(links, centres, boxes)
    for (i, j), value in links:
        if i in centres and j in centres:
            path = _arc(centres[i], centres[j])
        else:
            region, word = (i, j) if i in centres else (j, i)
            x, line = ports[region, word]
            path = down(centres[region], (x, tops[line]), [(gaps[row], tops[row]) for row in range(line)])
        width = strokes.width(value)
        for colour, thick in ((ground, width + 2 * HALO), (strokes.colour(value), width)):
            style: dict[str, Any] = {"edgecolor": colour, "linewidth": thick, "capstyle": "round"}
            axes.add_patch(PathPatch(path, facecolor="none", **style))
    # Labels are written over these dots.
    for region in sorted({one for pair, _ in links for one in pair if one in centres}):
        # As the widest line that ends here, which covers the ends of the others.
        value = max((value for pair, value in links if region in pair), key=abs)
        style = {"markeredgecolor": ground, "markeredgewidth": 0.8, "markersize": strokes.width(value) + DOT}
        axes.plot(*centres[region], "o", color=strokes.colour(value), **style)


def _arc(start: Point, end: Point) -> Path:
    """A line between two regions, bent so that those between other regions on the same row can be told apart."""
    (x1, y1), (x2, y2) = sorted((start, end))
    middle = ((x1 + x2) / 2 + BEND * (y2 - y1), (y1 + y2) / 2 - BEND * (x2 - x1))
    return Path([(x1, y1), middle, (x2, y2)], [Path.MOVETO, Path.CURVE3, Path.CURVE3])


def _ports(
    links: Sequence[Link], centres: Mapping[int, Point], boxes: Sequence[Box]
) -> dict[tuple[int, int], tuple[float, int]]:
    """For each region and word: where the line ends on the word, and on which line of boxes.

    A word that occurs several times has its lines at the first place. They are spread out, in the order of the regions.
    """
    first: dict[int, Box] = {}
    for box in boxes:
        if box.feature is not None:
            first.setdefault(box.feature, box)
    ends: dict[int, list[int]] = defaultdict(list)
    for (i, j), _ in links:
        if (i in centres) != (j in centres):
            region, word = (i, j) if i in centres else (j, i)
            ends[word].append(region)
    found = {}
    for word, regions in ends.items():
        box = first[word]
        for rank, region in enumerate(sorted(regions, key=lambda one: centres[one])):
            share = (rank + 0.5) / len(regions) - 0.5
            found[region, word] = (box.centre + share * PORTS * box.width, box.line)
    return found

"""Geometry of the regions of pictures: outlines along the edges of pixels, points inside, smaller versions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, UInt8

__all__ = ["Outline", "inner_point", "outlines", "reduced_mask", "reduced_pixels", "reduced_size", "svg_path"]

Outline = list[tuple[int, int]]
"""Corners (x, y) of a closed line, one after the other; horizontal and vertical sides take turns."""

_RIGHT, _DOWN, _LEFT, _UP = range(4)
_DEEP = 0.5
"""Depth of the centre of mass, relative to the deepest point of a region, that is enough for a label."""


def outlines(mask: Bool[np.ndarray, "H W"]) -> list[Outline]:
    """Closed lines around a mask, clockwise; those around its holes run the other way.

    Pixels that touch at a corner only are outlined one by one.
    """
    box = _box(mask)
    if box is None:
        return []
    rows, columns = box
    inside = np.pad(mask[rows, columns], 1)
    sides: dict[tuple[int, int], dict[int, tuple[int, int]]] = {}
    for direction, start, stop in _sides(inside):
        sides.setdefault(start, {})[direction] = stop
    # The mask was cropped, and padded by one pixel.
    left, top = columns.start - 1, rows.start - 1
    return [[(x + left, y + top) for x, y in line] for line in _closed(sides)]


def svg_path(lines: list[Outline]) -> str:
    """The ``d`` of an SVG path with these outlines; its sides are relative, which is short."""
    parts = []
    for line in lines:
        x, y = line[0]
        parts.append(f"M{x} {y}")
        for right, down in line[1:]:
            parts.append(f"h{right - x}" if down == y else f"v{down - y}")
            x, y = right, down
        parts.append("z")
    return "".join(parts)


def inner_point(mask: Bool[np.ndarray, "H W"]) -> tuple[float, float] | None:
    """A point (x, y) well inside a mask: the centre of mass, unless that is outside or near the border.

    ``None`` for an empty mask.
    """
    from scipy.ndimage import distance_transform_edt

    box = _box(mask)
    if box is None:
        return None
    rows, columns = box
    inside = np.pad(mask[rows, columns], 1)
    depth = np.asarray(distance_transform_edt(inside))
    ys, xs = np.nonzero(inside)
    y, x = float(ys.mean()), float(xs.mean())
    if depth[int(y + 0.5), int(x + 0.5)] < _DEEP * depth.max():
        # Of the deepest points, the one next to the centre of mass.
        ys, xs = np.nonzero(depth >= depth.max() - 0.5)
        nearest = int(np.argmin((ys - y) ** 2 + (xs - x) ** 2))
        y, x = float(ys[nearest]), float(xs[nearest])
    return x - 0.5 + columns.start, y - 0.5 + rows.start


def reduced_size(width: int, height: int, most: int) -> tuple[int, int]:
    """Width and height of which the longer is at most ``most`` pixels, in proportion."""
    factor = min(1.0, most / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def reduced_mask(mask: Bool[np.ndarray, "H W"], width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """A mask with fewer pixels; a mask that is not empty keeps one at least."""
    tall, wide = mask.shape
    if (wide, tall) == (width, height):
        return mask
    rows = ((np.arange(height) + 0.5) * tall / height).astype(int)
    columns = ((np.arange(width) + 0.5) * wide / width).astype(int)
    small = mask[np.ix_(rows, columns)]
    if not small.any() and mask.any():
        ys, xs = np.nonzero(mask)
        small[int(ys.mean() * height / tall), int(xs.mean() * width / wide)] = True
    return small


def reduced_pixels(pixels: UInt8[np.ndarray, "H W 3"], width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with fewer pixels, each the mean of those in its place."""
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def _box(mask: Bool[np.ndarray, "H W"]) -> tuple[slice, slice] | None:
    """Rows and columns of a mask; ``None`` if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _sides(inside: Bool[np.ndarray, "H W"]) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
    """Straight sides of the outlines, as direction, start and end; the mask is on their right."""
    for row, start, stop in _runs(inside[1:] & ~inside[:-1]):
        yield _RIGHT, (start, row + 1), (stop, row + 1)
    for row, start, stop in _runs(inside[:-1] & ~inside[1:]):
        yield _LEFT, (stop, row + 1), (start, row + 1)
    across = inside.T
    for column, start, stop in _runs(across[:-1] & ~across[1:]):
        yield _DOWN, (column + 1, start), (column + 1, stop)
    for column, start, stop in _runs(across[1:] & ~across[:-1]):
        yield _UP, (column + 1, stop), (column + 1, start)


def _runs(mask: Bool[np.ndarray, "N M"]) -> Iterator[tuple[int, int, int]]:
    """Row, start and end of the runs in each row."""
    steps: Int[np.ndarray, "N M"] = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps == 1)
    stops = np.nonzero(steps == -1)[1]
    return zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True)


def _closed(sides: dict[tuple[int, int], dict[int, tuple[int, int]]]) -> Iterator[Outline]:
    """Join sides to closed lines; where two lines cross at a corner, each turns right."""
    while sides:
        at, leaving = next(iter(sides.items()))
        direction = next(iter(leaving))
        line = []
        while at in sides and direction in sides[at]:
            line.append(at)
            leaving = sides[at]
            stop = leaving.pop(direction)
            if not leaving:
                del sides[at]
            at = stop
            onward = sides.get(at, {})
            turn = (direction + 1) % 4
            direction = turn if turn in onward else next(iter(onward), direction)
        yield line

"""Segmenters: grids, superpixels, and the model's own patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from apportion.errors import InputError
from apportion.options import whole_number
from apportion.protocols.pictures import Region
from apportion.rendering.picture_writer import image_token_ids, placeholder, processed
from apportion_plugins.pictures.visible import visible_part

__all__ = ["Grid", "Patches", "Slic", "cells", "of_labels"]

Pixels = np.ndarray
SMALL = 336
"""Longest side of the picture that SLIC looks at; its regions are enlarged. 10 times as fast for 1024 × 768 pixels."""


class Grid:
    """A grid of equal cells, whatever the picture shows.

    Args:
        rows: number of rows.
        columns: number of columns; as many as rows if it is not given.
    """

    def __init__(self, *, rows: int = 4, columns: int | None = None) -> None:
        self.rows = whole_number("rows", rows, least=1)
        self.columns = self.rows if columns is None else whole_number("columns", columns, least=1)

    def segment(self, pixels: UInt8[Pixels, "H W 3"], processor: Any) -> Sequence[Region]:
        """The cells, row by row."""
        height, width = pixels.shape[:2]
        if self.rows > height or self.columns > width:
            raise InputError(
                f"A grid of {self.rows} × {self.columns} cells does not fit a picture of {height} × {width} pixels "
                "(rows × columns)."
            )
        return cells(np.arange(height) * self.rows // height, np.arange(width) * self.columns // width)


class Slic:
    """Superpixels: connected regions of similar colour (SLIC, Achanta et al. 2012).

    Args:
        n: approximate number of regions; pictures with large areas of one colour have fewer.
        compactness: weight of nearness against likeness of colour; higher values give squarer regions.
    """

    def __init__(self, *, n: int = 40, compactness: float = 10.0) -> None:
        self.n = whole_number("n", n, least=1)
        if not isinstance(compactness, int | float) or not 0 < compactness < math.inf:
            raise InputError(f"compactness={compactness!r} must be a number above 0.")
        self.compactness = float(compactness)

    def segment(self, pixels: UInt8[Pixels, "H W 3"], processor: Any) -> Sequence[Region]:
        """The regions, from the top left to the bottom right."""
        try:
            from skimage.segmentation import slic
        except ImportError as error:
            raise InputError(
                "segments='slic' needs scikit-image: pip install 'apportion[image]'. Without it, use 'grid:6x6'."
            ) from error
        from PIL import Image

        height, width = pixels.shape[:2]
        share = min(1.0, SMALL / max(height, width))
        size = max(1, round(width * share)), max(1, round(height * share))
        small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        labels = slic(small, n_segments=self.n, compactness=self.compactness, start_label=1, channel_axis=-1)
        rows, columns = np.arange(height) * size[1] // height, np.arange(width) * size[0] // width
        return of_labels(labels[rows][:, columns])


class Patches:
    """The patches that the model itself divides the picture into, as many as it has features of the picture.

    A picture that its processor crops has its outermost patches extended to the borders.
    """

    def segment(self, pixels: UInt8[Pixels, "H W 3"], processor: Any) -> Sequence[Region]:
        """The patches, row by row."""
        if processor is None:
            raise InputError("segments='patches' needs a model that reads pictures.")
        inputs = processed(processor, placeholder(processor), [pixels], return_tensors="pt")
        rows, columns = _arrangement(processor, inputs)
        height, width = pixels.shape[:2]
        top, left, high, wide = visible_part(processor, height, width)
        if rows > high or columns > wide:
            raise InputError(
                f"The model divides this picture into {rows} × {columns} patches, but sees only {high:.4g} × "
                f"{wide:.4g} pixels of it. Use another segmenter, or enlarge the picture."
            )
        row = ((np.arange(height) - top) * rows // high).clip(0, rows - 1)
        column = ((np.arange(width) - left) * columns // wide).clip(0, columns - 1)
        return cells(row.astype(int), column.astype(int))


def cells(row_of: Int[np.ndarray, " H"], column_of: Int[np.ndarray, " W"]) -> list[Region]:
    """Cells of a grid, from the row of each line of pixels and the column of each."""
    return [
        Region(f"row {r + 1}, column {c + 1}", (row_of == r)[:, None] & (column_of == c)[None])
        for r in range(int(row_of.max()) + 1)
        for c in range(int(column_of.max()) + 1)
    ]


def of_labels(labels: Int[np.ndarray, "H W"]) -> list[Region]:
    """Regions of a label map, in the order of their numbers; negative numbers are not regions."""
    numbers = [int(one) for one in np.unique(labels) if one >= 0]
    return [Region(f"region {number}", labels == number) for number in numbers]


def _arrangement(processor: Any, inputs: Any) -> tuple[int, int]:
    """Rows and columns of the features of a picture."""
    grid = inputs.get("image_grid_thw")
    if grid is not None:
        merge = int(getattr(processor.image_processor, "merge_size", 1))
        return int(grid[0][1]) // merge, int(grid[0][2]) // merge
    pixels = inputs["pixel_values"]
    tiles = pixels.shape[1] if pixels.ndim == 5 else len(pixels)
    if tiles != 1:
        raise InputError(
            f"This model reads the picture as {tiles} tiles, which have no common patches. Use 'grid:6x6' or 'slic:40'."
        )
    ids = inputs["input_ids"][0].tolist()
    count = max(ids.count(one) for one in image_token_ids(processor))
    side = math.isqrt(count)
    if side * side == count:
        return side, side
    height, width = (int(size) for size in pixels.shape[-2:])
    rows = round(math.sqrt(count * height / width))
    if rows and count % rows == 0:
        return rows, count // rows
    raise InputError(f"The {count} features of a picture of this model are not a grid. Use 'grid:6x6' or 'slic:40'.")

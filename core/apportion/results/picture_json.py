"""Pictures of a result as JSON: their regions as run lengths, and their pixels as PNG if these are to be saved."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from apportion.protocols.pictures import Picture

__all__ = ["picture_from_json", "picture_to_json", "run_lengths"]


def picture_to_json(picture: Picture, *, pixels: bool) -> dict[str, Any]:
    """Convert a picture to plain values.

    Args:
        picture: the picture.
        pixels: include its pixels, as a PNG file in base64.
    """
    return {
        "name": picture.name,
        "width": picture.width,
        "height": picture.height,
        "fill": picture.fill,
        "digest": picture.digest,
        "regions": {str(feature): run_lengths(mask) for feature, mask in picture.regions.items()},
        "png": _png(picture) if pixels and picture.pixels is not None else None,
    }


def picture_from_json(data: Mapping[str, Any], features: int) -> Picture:
    """Make a picture of the values of a file.

    Args:
        data: the values.
        features: number of features of the result.

    Raises:
        TypeError, ValueError, KeyError: the values are not those of a picture.
    """
    width, height = data["width"], data["height"]
    if type(width) is not int or type(height) is not int or width < 1 or height < 1:
        raise ValueError(f"a picture has {width!r} × {height!r} pixels")
    if not all(isinstance(data[key], str) for key in ("name", "fill", "digest")) or not isinstance(
        data["regions"], dict
    ):
        raise TypeError("a picture has no name, fill, digest or regions")
    regions = {}
    for feature, lengths in data["regions"].items():
        if not feature.isdecimal() or not int(feature) < features:
            raise ValueError(f"a region of a picture belongs to feature {feature!r} of {features}")
        regions[int(feature)] = _mask(lengths, width, height)
    png = data["png"]
    pixels = None if png is None else _pixels(png, width, height)
    return Picture(data["name"], width, height, regions, pixels, data["fill"], data["digest"])


def run_lengths(mask: Bool[np.ndarray, "H W"]) -> list[int]:
    """Lengths of the runs of pixels outside and inside a mask, in turn, down each column from left to right.

    The first run is outside, and may be empty. These are the uncompressed counts of COCO (``pycocotools``).
    """
    flat = np.concatenate([[False], np.asarray(mask, bool).ravel(order="F")])
    borders = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(length) for length in np.diff(np.concatenate([[0], borders, [flat.size - 1]]))]


def _mask(lengths: Any, width: int, height: int) -> Bool[np.ndarray, "H W"]:
    if not isinstance(lengths, list) or not all(type(one) is int and one >= 0 for one in lengths):
        raise TypeError(f"the run lengths of a region are {lengths!r:.60}")
    if sum(lengths) != width * height:
        raise ValueError(f"the run lengths of a region have the sum {sum(lengths)}, not {width} × {height}")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape((height, width), order="F")


def _png(picture: Picture) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.asarray(picture.pixels)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _pixels(png: Any, width: int, height: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(png, validate=True)), formats=["PNG"]) as image:
            if image.size != (width, height):
                raise ValueError(f"they are {image.width} × {image.height}, not {width} × {height}")
            return np.array(image.convert("RGB"))
    except Exception as error:  # damaged files fail in many ways
        raise ValueError(f"the pixels of a picture cannot be read: {error}") from error

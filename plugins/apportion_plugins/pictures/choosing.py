"""Regions and fills, from the forms in which users give them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from apportion.errors import InputError, PluginError, UnknownNameError, listing, shown
from apportion.failures import failures_of_plugin
from apportion.protocols.pictures import Fill, Region, Segmenter
from apportion_plugins.pictures.fills import Colour, Replacement
from apportion_plugins.pictures.loading import load_picture
from apportion_plugins.pictures.segmenters import of_labels

__all__ = ["chosen_fill", "chosen_regions", "fill_name"]

Pixels = np.ndarray
Mask = np.ndarray
Make = Callable[[str, str], Any]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of names that can only be files."""


def chosen_regions(
    given: object, pixels: UInt8[Pixels, "H W 3"], name: str, processor: Any, make: Make | None
) -> tuple[list[Region], list[str]]:
    """The regions of a picture, and notes on them.

    Args:
        given: ``segments`` of this picture, as the user gave them.
        pixels: the picture.
        name: name of the picture, for messages.
        processor: the model's processor.
        make: makes registered segmenters.

    Raises:
        InputError: they do not fit the picture, or are of another type.
    """
    if given is None:
        return [], []
    if isinstance(given, str):
        given = _made("segmenters", given, make)
    if isinstance(given, type):
        raise InputError(f"segments={given.__name__} is a class; give an object of it, {given.__name__}().")
    if isinstance(given, Segmenter):
        regions = _of_segmenter(given, pixels, processor)
    else:
        regions = _of_masks(given, pixels.shape[:2], name)
    return regions, list(_notes(regions, name))


def _of_segmenter(segmenter: Segmenter, pixels: UInt8[Pixels, "H W 3"], processor: Any) -> list[Region]:
    what = f"The segmenter {type(segmenter).__name__}"
    with failures_of_plugin(what, asks=False):
        given: object = segmenter.segment(pixels, processor)
        if not isinstance(given, Iterable) or isinstance(given, Mapping | str):
            raise PluginError(f"{what} returned {shown(given)}; it must return a list of Regions.")
        # Copied at once: a generator may use one mask again.
        found = [_copied(one, pixels.shape[:2], what) for one in given]
    if not found:
        raise PluginError(f"{what} returned no region; it must return one at least.")
    names = [one.name for one in found]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise PluginError(f"{what} returned two regions with the name {twice!r}; names must be unique.")
    return found


def _copied(given: object, shape: tuple[int, ...], what: str) -> Region:
    """A region of a segmenter, with a mask of its own."""
    if not isinstance(given, Region) or not isinstance(given.mask, np.ndarray) or given.mask.dtype != np.bool_:
        raise PluginError(f"{what} returned {shown(given)}; it must return Regions with masks of bool.")
    if given.mask.shape != shape:
        raise PluginError(f"{what} returned a mask of the shape {given.mask.shape} for a picture of {shape}.")
    if not isinstance(given.name, str) or not given.name.strip():
        raise PluginError(f"{what} returned a region with the name {shown(given.name)}; it must be a text.")
    return Region(given.name, given.mask.copy())


def _of_masks(given: object, shape: tuple[int, ...], name: str) -> list[Region]:
    """Regions of a label map, of masks, or of boxes."""
    if isinstance(given, Mapping | Sequence) and not given:
        raise InputError(f"There is nothing in the segments of {name}. Give None to keep the picture whole.")
    if isinstance(given, Mapping):
        if not all(str(key).strip() for key in given):
            raise InputError(f"A region of {name} has an empty name.")
        return [Region(str(key), _mask(one, shape, f"The region {key!r}")) for key, one in given.items()]
    if isinstance(given, Sequence) and all(isinstance(one, Region) for one in given):
        return [Region(one.name, _mask(one.mask, shape, f"The region {one.name!r}")) for one in given]
    if isinstance(given, Sequence):
        nouns = ["box" if _is_box(one) else "mask" for one in given]
        masks = [_mask(one, shape, f"Segment {i}") for i, one in enumerate(given, 1)]
        return [Region(f"{noun} {i}", mask) for i, (noun, mask) in enumerate(zip(nouns, masks, strict=True), 1)]
    labels = _array(given)
    if labels is None or labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise InputError(
            f"segments={shown(given)} is not the name of a segmenter, a label map Int[H, W], a list of masks, or a "
            "list of boxes."
        )
    _check_shape(labels, shape, "The label map")
    if labels.dtype == np.bool_:
        return [Region("mask 1", labels.copy())]
    if labels.max() < 0:
        raise InputError(f"The label map of {name} has negative numbers only, which are not regions.")
    return of_labels(labels)


def _mask(given: object, shape: tuple[int, ...], what: str) -> Bool[Mask, "H W"]:
    """A mask, or a box as a mask."""
    if _is_box(given):
        return _box(given, shape, what)
    mask = _array(given)
    if mask is None or mask.ndim != 2:
        raise InputError(
            f"{what} must be a mask Bool[H, W] or a box (left, top, right, bottom), and not {shown(given)}."
        )
    _check_shape(mask, shape, what)
    if mask.dtype != np.bool_ and not np.isin(mask, (0, 1)).all():
        raise InputError(f"{what} has other numbers than 0 and 1, so it is not a mask.")
    return mask.astype(bool)


def _box(given: Any, shape: tuple[int, ...], what: str) -> Bool[Mask, "H W"]:
    left, top, right, bottom = (float(side) for side in given)
    height, width = shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InputError(
            f"{what}, ({left:g}, {top:g}, {right:g}, {bottom:g}), must be (left, top, right, bottom) within the "
            f"{width} × {height} pixels of the picture."
        )
    mask = np.zeros((height, width), bool)
    mask[round(top) : max(round(top) + 1, round(bottom)), round(left) : max(round(left) + 1, round(right))] = True
    return mask


def _is_box(given: object) -> bool:
    array = _array(given)
    return array is not None and array.shape == (4,) and array.dtype.kind in "iuf"


def _check_shape(mask: np.ndarray, shape: tuple[int, ...], what: str) -> None:
    if mask.shape != tuple(shape[:2]):
        raise InputError(f"{what} has the shape {mask.shape}, but the picture has {tuple(shape[:2])} (height, width).")


def _array(given: object) -> np.ndarray | None:
    """An array or tensor, or a list of numbers, as an array; ``None`` for anything else."""
    try:
        array = np.asarray(given.cpu() if hasattr(given, "cpu") else given)
    except Exception:  # lists of different lengths, and objects of any kind
        return None
    return array if array.dtype != object else None


def _notes(regions: Sequence[Region], name: str) -> Sequence[str]:
    notes = []
    empty = [region.name for region in regions if not region.mask.any()]
    if empty:
        notes.append(f"regions of {name} without any pixel have no effect: {listing(map(repr, empty), 6)}")
    covered = np.logical_or.reduce([region.mask for region in regions]) if regions else np.ones((1, 1), bool)
    left = float((~covered).mean())
    if left:
        notes.append(f"{100 * left:.1f} % of {name} is in no region, and always present")
    return notes


def chosen_fill(given: object, max_pixels: int, make: Make | None) -> tuple[Fill, tuple[str, ...]]:
    """The fill that a user gave, and notes on it.

    Raises:
        InputError: it is not a fill, a colour or a picture.
    """
    if isinstance(given, type):
        raise InputError(f"fill={given.__name__} is a class; give an object of it, {given.__name__}().")
    if isinstance(given, Fill):
        return given, ()
    if isinstance(given, str):
        return _named_fill(given, max_pixels, make)
    if isinstance(given, list | tuple) or getattr(given, "shape", None) == (3,):
        return _colour(given), ()
    # Arrays have a method of this name.
    if callable(given) or (callable(getattr(given, "fill", None)) and not hasattr(given, "__array__")):
        raise InputError(
            f"fill={shown(given)} is not a fill: an object needs the method fill(pixels, absent, seed), and the "
            "attribute `once`, True if the replacement does not depend on which pixels are absent."
        )
    return _picture(given, max_pixels)


def _colour(given: Any) -> Colour:
    parts = list(given)
    whole = all(isinstance(one, int | np.integer) and not isinstance(one, bool) and 0 <= one <= 255 for one in parts)
    if len(parts) != 3 or not whole:
        raise InputError(f"fill={shown(given)} is not a colour: give red, green and blue, each from 0 to 255.")
    return Colour((int(parts[0]), int(parts[1]), int(parts[2])))


def _picture(given: object, max_pixels: int) -> tuple[Fill, tuple[str, ...]]:
    loaded = load_picture(given, "the fill", max_pixels)
    return Replacement(loaded.pixels), loaded.notes


def _named_fill(given: str, max_pixels: int, make: Make | None) -> tuple[Fill, tuple[str, ...]]:
    """A registered fill, a colour, or the path of a picture."""
    try:
        return _made("fills", given, make), ()
    except UnknownNameError as error:
        unknown = error
    colour = _named_colour(given)
    if colour is not None:
        return colour, ()
    path = Path(given).expanduser()
    if path.is_file():
        return _picture(given, max_pixels)
    if os.sep in given or path.suffix.lower() in SUFFIXES:
        raise InputError(
            f"There is no picture {given}, which fill= names. A relative path begins at the working directory, "
            f"{Path.cwd()}."
        ) from unknown
    raise InputError(f"{unknown} A colour such as '#808080', and the path of a picture, work too.") from unknown


def _named_colour(given: str) -> Colour | None:
    from PIL import ImageColor

    try:
        red, green, blue, *opacity = ImageColor.getrgb(given)
    except ValueError:
        return None
    if opacity:
        raise InputError(f"fill={given!r} has an opacity, but absent pixels are replaced wholly. Give a colour.")
    return Colour((red, green, blue))


def fill_name(given: object) -> str:
    """A name of a fill for views."""
    if isinstance(given, str):
        return Path(given).name
    if isinstance(given, list | tuple) or getattr(given, "shape", None) == (3,):
        return f"colour {_colour(given).colour}"
    return str(getattr(given, "name", None) or (type(given).__name__ if isinstance(given, Fill) else "another picture"))


def _made(kind: str, text: str, make: Make | None) -> Any:
    if make is None:
        raise InputError(f"{text!r} cannot be looked up here, because no plugins are loaded; give an object.")
    return make(kind, text)

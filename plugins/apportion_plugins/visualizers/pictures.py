"""The pictures that views show, and the scores of their pixels."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from apportion.errors import InputError, counted, listing, shown
from apportion.prompts.image_text import MAX_PIXELS
from apportion.protocols.pictures import Picture
from apportion.protocols.row import Media
from apportion.results.attribution import Attribution
from apportion_plugins.pictures.loading import load_picture
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.outlines import inner_point, reduced_mask, reduced_pixels, reduced_size

__all__ = ["ShownPicture", "chosen_pictures", "picture_titles", "pixel_scores", "region_features", "shown_picture"]

UNNAMED = "the picture"
"""Name of a picture that the user gave without one."""


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """A picture in the size in which it is drawn.

    Attributes:
        title: what it is called.
        masks: the mask of each of its regions, by the number of the feature.
        pixels: the picture; ``None`` if it is not known.
        width: its width in pixels.
        height: its height in pixels.
        is_other: its pixels are not those that were attributed to.
    """

    title: str
    masks: Mapping[int, Bool[np.ndarray, "H W"]]
    pixels: UInt8[np.ndarray, "H W 3"] | None
    width: int
    height: int
    is_other: bool = False

    @property
    def is_named(self) -> bool:
        """True if its title says something."""
        return self.title != UNNAMED

    @cached_property
    def overlap(self) -> bool:
        """True if a pixel is in several regions."""
        count = sum((mask.astype(np.int32) for mask in self.masks.values()), np.zeros((1, 1), np.int32))
        return int(np.max(count)) > 1

    @cached_property
    def points(self) -> Mapping[int, tuple[float, float]]:
        """A point (x, y) in each region that has pixels, outside of smaller regions if possible."""
        found: dict[int, tuple[float, float]] = {}
        taken = np.zeros((self.height, self.width), bool)
        for feature in sorted(self.masks, key=lambda one: int(self.masks[one].sum())):
            mask = self.masks[feature]
            point = inner_point(mask & ~taken) or inner_point(mask)
            if point is not None:
                found[feature] = point
            taken |= mask
        return found


def region_features(attribution: Attribution) -> set[int]:
    """Numbers of the features that are regions of pictures."""
    return {feature for picture in attribution.pictures for feature in picture.regions}


def picture_titles(attribution: Attribution) -> list[str]:
    """A title for each picture: its name, after its number if the regions of several are told apart by it."""
    names = [one_line(picture.name) for picture in attribution.pictures]
    if len(names) == 1:
        return names
    numbers = [f"picture {i}" for i in range(1, len(names) + 1)]
    return [name if name == number else f"{number}: {name}" for name, number in zip(names, numbers, strict=True)]


def shown_picture(
    picture: Picture, title: str, most: int, pixels: UInt8[np.ndarray, "H W 3"] | None = None
) -> ShownPicture:
    """A picture, made smaller if it is larger than ``most`` pixels in a direction.

    Args:
        picture: the picture of the result.
        title: what it is called.
        most: pixels of the longer side.
        pixels: the picture itself, instead of that in the result.
    """
    width, height = reduced_size(picture.width, picture.height, most)
    masks = {
        feature: reduced_mask(np.asarray(mask, dtype=bool), width, height)
        for feature, mask in sorted(picture.regions.items())
    }
    found = picture.pixels if pixels is None else pixels
    small = None if found is None else reduced_pixels(np.asarray(found), width, height)
    other = pixels is not None and picture.digest not in ("", Media.of("image", pixels).digest)
    return ShownPicture(title, masks, small, width, height, other)


def chosen_pictures(attribution: Attribution, which: object, images: object, most: int) -> list[ShownPicture]:
    """The pictures that a user chose.

    Args:
        attribution: the result.
        which: position or name of a picture; ``None`` for all.
        images: the pictures themselves, instead of those in the result; ``None`` for those.
        most: pixels of the longer side; larger ones are made smaller.

    Raises:
        InputError: the result has no pictures, or not this one, or the images do not fit them.
    """
    pictures = attribution.pictures
    if not pictures:
        raise InputError(
            "The prompt of this result has no pictures, so the view 'image' has nothing to draw. Choose another view, "
            "such as plot('heatmap'), or attribute to ap.ImageText(picture, text) with a model that reads pictures."
        )
    places = range(len(pictures)) if which is None else [_place(pictures, which)]
    chosen = [pictures[i] for i in places]
    given = _given(images, chosen)
    titles = picture_titles(attribution)
    return [shown_picture(pictures[i], titles[i], most, pixels) for i, pixels in zip(places, given, strict=True)]


def pixel_scores(
    picture: ShownPicture, values: Float64[np.ndarray, " F"], features: Collection[int]
) -> Float64[np.ndarray, "H W"]:
    """The sum of the scores of all regions that a pixel is in; NaN for pixels in none.

    Args:
        picture: the picture.
        values: the score of each feature; regions whose score is not finite are left out.
        features: the regions that count.
    """
    total, covered = np.zeros((picture.height, picture.width)), np.zeros((picture.height, picture.width), bool)
    for feature, mask in picture.masks.items():
        if feature in features and np.isfinite(values[feature]):
            total[mask] += values[feature]
            covered |= mask
    return np.where(covered, total, np.nan)


def _place(pictures: Sequence[Picture], which: Any) -> int:
    names = [picture.name for picture in pictures]
    there = listing(f"{i} {name!r}" for i, name in enumerate(names))
    if isinstance(which, str) and names.count(which) > 1:
        raise InputError(f"{names.count(which)} pictures are called {which!r}; give a position: {there}.")
    if isinstance(which, str) and which in names:
        return names.index(which)
    whole = isinstance(which, numbers.Integral) and not isinstance(which, bool)
    if not whole or not 0 <= which < len(pictures):
        raise InputError(
            f"picture={shown(which)} must be the position or the name of a picture, or None for all: {there}."
        )
    return int(which)


def _given(images: Any, pictures: Sequence[Picture]) -> list[UInt8[np.ndarray, "H W 3"] | None]:
    """The pixels that a user gave for these pictures."""
    if images is None:
        return [None] * len(pictures)
    given = list(images) if isinstance(images, list | tuple) else [images]
    if len(given) != len(pictures):
        raise InputError(
            f"images= has {counted(len(given), 'picture')} for the {counted(len(pictures), 'picture')} that the view "
            f"shows: {listing(repr(picture.name) for picture in pictures)}."
        )
    return [_fitting(one, picture) for one, picture in zip(given, pictures, strict=True)]


def _fitting(given: object, picture: Picture) -> UInt8[np.ndarray, "H W 3"]:
    loaded = load_picture(given, picture.name, max(MAX_PIXELS, picture.width * picture.height))
    height, width = loaded.pixels.shape[:2]
    if (width, height) != (picture.width, picture.height):
        raise InputError(
            f"images=: {loaded.name} has {width} × {height} pixels, but the result has the regions of a picture of "
            f"{picture.width} × {picture.height}. Give the picture that was attributed to, in its own size."
        )
    return loaded.pixels

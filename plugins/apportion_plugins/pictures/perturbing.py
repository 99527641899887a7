"""Pictures with some regions absent, as media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Bool, UInt8

from apportion.errors import PluginError
from apportion.failures import failures_of_plugin
from apportion.protocols.pictures import Fill, Region
from apportion.protocols.row import Media

__all__ = ["PerturbedPicture"]

Pixels = np.ndarray
Mask = np.ndarray


class PerturbedPicture:
    """A picture whose regions are present or absent.

    Args:
        pixels: the picture.
        regions: its regions. A pixel is absent if any region that it is in is absent.
        fill: replaces absent pixels.
        seed: seed of fills that draw.
    """

    def __init__(self, pixels: UInt8[Pixels, "H W 3"], regions: Sequence[Region], fill: Fill, seed: int) -> None:
        self.pixels = pixels
        self.regions = regions
        self._fill, self._seed = fill, seed
        self._once: UInt8[Pixels, "H W 3"] | None = None
        self._known: dict[tuple[bool, ...], Media] = {}

    def media(self, present: Sequence[bool]) -> Media:
        """The picture with some regions present, as media; its pixels are made again when they are read."""
        key = tuple(present)
        found = self._known.get(key)
        if found is None:
            made = Media.of("image", self.shown(key))
            found = self._known[key] = replace(made, data=partial(self._again, key, made.digest))
        return found

    def _again(self, present: Sequence[bool], digest: str) -> UInt8[Pixels, "H W 3"]:
        """The pixels that were shown before.

        Raises:
            PluginError: they are others, so that the scores would belong to another picture than their digest says.
        """
        found = self.shown(present)
        if not self._fill.once and Media.of("image", found).digest != digest:
            raise PluginError(
                f"The fill {type(self._fill).__name__} returned other pixels for the same picture, mask and seed. One "
                "that draws must use np.random.default_rng(seed)."
            )
        return found

    def shown(self, present: Sequence[bool]) -> UInt8[Pixels, "H W 3"]:
        """The pixels with some regions present."""
        gone = [region.mask for region, here in zip(self.regions, present, strict=True) if not here]
        if not gone:
            return self.pixels
        absent = np.logical_or.reduce(gone)
        absent.flags.writeable = False
        if not absent.any():
            return self.pixels
        return np.where(absent[..., None], self._filled(absent), self.pixels)

    def _filled(self, absent: Bool[Mask, "H W"]) -> UInt8[Pixels, "H W 3"]:
        if not self._fill.once:
            return self._made(absent)
        if self._once is None:
            everything = np.ones(self.pixels.shape[:2], bool)
            everything.flags.writeable = False
            self._once = self._made(everything).copy()  # it may be a buffer of the fill
        return self._once

    def _made(self, absent: Bool[Mask, "H W"]) -> UInt8[Pixels, "H W 3"]:
        with failures_of_plugin(f"The fill {type(self._fill).__name__}", asks=False):
            # A view of what is read-only cannot be made writable again.
            found: object = self._fill.fill(self.pixels, absent.view(), self._seed)
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != self.pixels.shape:
            what = f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
            raise PluginError(
                f"The fill {type(self._fill).__name__} returned {what}; it must return UInt8{list(self.pixels.shape)}."
            )
        return found

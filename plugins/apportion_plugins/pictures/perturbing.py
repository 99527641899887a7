"""Pictures with some regions absent, as media."""

from __future__ import annotations

from collections.abc import Sequence
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
            found = self._known[key] = Media.of("image", self.shown(key), partial(self.shown, key))
        return found

    def shown(self, present: Sequence[bool]) -> UInt8[Pixels, "H W 3"]:
        """The pixels with some regions present."""
        gone = [region.mask for region, here in zip(self.regions, present, strict=True) if not here]
        if not gone:
            return self.pixels
        absent = np.logical_or.reduce(gone)
        absent.flags.writeable = False  # fills of plugins may write into it, and into the picture
        if not absent.any():
            return self.pixels
        return np.where(absent[..., None], self._filled(absent), self.pixels)

    def _filled(self, absent: Bool[Mask, "H W"]) -> UInt8[Pixels, "H W 3"]:
        if not self._fill.once:
            return self._made(absent)
        if self._once is None:
            everything = np.ones(self.pixels.shape[:2], bool)
            everything.flags.writeable = False
            self._once = self._made(everything)
        return self._once

    def _made(self, absent: Bool[Mask, "H W"]) -> UInt8[Pixels, "H W 3"]:
        with failures_of_plugin(f"The fill {type(self._fill).__name__}", asks=False):
            found: object = self._fill.fill(self.pixels, absent, self._seed)
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != self.pixels.shape:
            what = f"{found.shape} {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
            raise PluginError(
                f"The fill {type(self._fill).__name__} returned {what}; it must return UInt8{list(self.pixels.shape)}."
            )
        return found

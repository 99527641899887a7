"""Fills: what stands in place of absent regions."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, UInt8

from apportion.errors import InputError

__all__ = ["Black", "Blur", "Colour", "Inpaint", "LocalMean", "Mean", "Noise", "Replacement", "White"]

Pixels = np.ndarray
Mask = np.ndarray


class Colour:
    """One colour.

    Args:
        colour: red, green and blue, from 0 to 255.
    """

    once = True

    def __init__(self, colour: tuple[int, int, int]) -> None:
        self.colour = colour

    def fill(self, pixels: UInt8[Pixels, "H W 3"], absent: Bool[Mask, "H W"], seed: int) -> UInt8[Pixels, "H W 3"]:
        """A picture of this colour."""
        return np.broadcast_to(np.array(self.colour, np.uint8), pixels.shape)


class Black(Colour):
    """Black, which many models take for a thing of its own; a baseline to compare others with."""

    def __init__(self) -> None:
        super().__init__((0, 0, 0))


class White(Colour):
    """White, the default of Captum's ``ImageMaskInput``."""

    def __init__(self) -> None:
        super().__init__((255, 255, 255))


class Mean:
    """The mean colour of the whole picture."""

    once = True

    def fill(self, pixels: UInt8[Pixels, "H W 3"], absent: Bool[Mask, "H W"], seed: int) -> UInt8[Pixels, "H W 3"]:
        """A picture of the mean colour."""
        mean = np.rint(pixels.reshape(-1, 3).mean(0)).astype(np.uint8)
        return np.broadcast_to(mean, pixels.shape)


class LocalMean:
    """The mean colour of each connected absent area, as in LIME for a single superpixel."""

    once = False

    def fill(self, pixels: UInt8[Pixels, "H W 3"], absent: Bool[Mask, "H W"], seed: int) -> UInt8[Pixels, "H W 3"]:
        """A picture in which each absent area has its mean colour."""
        from scipy import ndimage

        labels, count = ndimage.label(absent)
        where = labels.ravel()
        sizes = np.maximum(np.bincount(where, minlength=count + 1), 1)
        means = np.stack([np.bincount(where, pixels[..., c].ravel(), count + 1) / sizes for c in range(3)], axis=-1)
        found: UInt8[Pixels, "H W 3"] = np.rint(means).astype(np.uint8)[labels]
        return found


class Blur:
    """The picture, blurred by a Gaussian; keeps colours and light, and hides shapes.

    Args:
        radius: standard deviation in pixels; ``None`` for a tenth of the shorter side.
    """

    once = True

    def __init__(self, *, radius: float | None = None) -> None:
        if radius is not None and (not isinstance(radius, int | float) or not 0 < radius < math.inf):
            raise InputError(f"radius={radius!r} must be a number of pixels above 0.")
        self.radius = radius

    def fill(self, pixels: UInt8[Pixels, "H W 3"], absent: Bool[Mask, "H W"], seed: int) -> UInt8[Pixels, "H W 3"]:
        """The blurred picture."""
        from PIL import Image, ImageFilter

        radius = max(1.0, min(pixels.shape[:2]) / 10) if self.radius is None else self.radius
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


class Noise:
    """Random pixels, normal with the mean and the spread of each channel; the same in every coalition."""

    once = True

    def fill(self, pixels: UInt8[Pixels, "H W 3"], absent: Bool[Mask, "H W"], seed: int) -> UInt8[Pixels, "H W 3"]:
        """A picture of noise."""
        flat = pixels.reshape(-1, 3)
        drawn = np.random.default_rng(seed).normal(flat.mean(0), flat.std(0), pixels.shape)
        return np.rint(drawn).clip(0, 255).astype(np.uint8)


class Inpaint:
    """Absent regions continued from the pixels around them (Telea 2004); the mean colour if nothing is present.

    Args:
        radius: distance in pixels from which a pixel is continued.
    """

    once = False

    def __init__(self, *, radius: float = 3.0) -> None:
        if not isinstance(radius, int | float) or not 0 < radius < math.inf:
            raise InputError(f"radius={radius!r} must be a number of pixels above 0.")
        self.radius = float(radius)

    def fill(self, pixels: UInt8[Pixels, "H W 3"], absent: Bool[Mask, "H W"], seed: int) -> UInt8[Pixels, "H W 3"]:
        """The picture without what was in absent regions."""
        if absent.all():
            return Mean().fill(pixels, absent, seed)
        try:
            import cv2
        except ImportError as error:
            raise InputError(
                "fill='inpaint' needs OpenCV: pip install 'apportion[image]'. Without it, use 'blur' or 'mean'."
            ) from error
        # What is absent must not show through.
        known = np.where(absent[..., None], 0, pixels).astype(np.uint8)
        # OpenCV reads beyond the borders of a picture of one row or column.
        edge = 1 if min(absent.shape) == 1 else 0
        known = np.pad(known, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
        gone = np.pad(absent, edge, mode="edge").astype(np.uint8)
        found = np.asarray(cv2.inpaint(known, gone, self.radius, cv2.INPAINT_TELEA))
        return found[edge : len(found) - edge, edge : found.shape[1] - edge]


class Replacement:
    """Another picture, in the size of the one it replaces.

    Args:
        other: the other picture.
    """

    once = True

    def __init__(self, other: UInt8[Pixels, "H W 3"]) -> None:
        self.other = other

    def fill(self, pixels: UInt8[Pixels, "H W 3"], absent: Bool[Mask, "H W"], seed: int) -> UInt8[Pixels, "H W 3"]:
        """The other picture."""
        from PIL import Image

        height, width = pixels.shape[:2]
        if self.other.shape == pixels.shape:
            return self.other
        return np.asarray(Image.fromarray(self.other).resize((width, height), Image.Resampling.BICUBIC))

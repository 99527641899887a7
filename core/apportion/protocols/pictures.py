"""Pictures: their regions, which are features, and the protocols of segmenters and fills. Imports no tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8

__all__ = ["Fill", "Picture", "Region", "Segmenter"]


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a picture that is present or absent as a whole.

    Attributes:
        name: name of the region, unique within its picture.
        mask: ``True`` for its pixels.
    """

    name: str
    mask: Bool[np.ndarray, "H W"]


@runtime_checkable
class Segmenter(Protocol):
    """Divides a picture into regions: ``segments="slic:40"``.

    Options are keyword-only parameters of the registered factory, each with a default. In the short form, values after
    the colon are those of its options in order: ``"grid:4x6"`` is ``rows=4, columns=6``.
    """

    def segment(self, pixels: UInt8[np.ndarray, "H W 3"], processor: Any) -> Sequence[Region]:
        """The regions of a picture, which may overlap. Pixels in none of them are always present.

        Args:
            pixels: the picture.
            processor: the model's processor, for regions that depend on it; ``None`` if there is none.
        """
        ...


@runtime_checkable
class Fill(Protocol):
    """Replaces the absent pixels of a picture: ``fill="blur"``.

    Options are as those of segmenters. The attribute ``once`` is ``True`` if the replacement does not depend on which
    pixels are absent: it is then made once, with all of them absent.
    """

    @property
    def once(self) -> bool:
        """The replacement is the same for all coalitions."""
        ...

    def fill(
        self, pixels: UInt8[np.ndarray, "H W 3"], absent: Bool[np.ndarray, "H W"], seed: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A picture from which absent pixels are taken; its other pixels are ignored.

        Args:
            pixels: the picture, which must not be changed.
            absent: ``True`` for absent pixels.
            seed: seed of random draws.
        """
        ...


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a prompt, and the regions of it that are features.

    Attributes:
        name: its name in views, such as that of its file.
        width: its width in pixels.
        height: its height in pixels.
        regions: the mask of each feature that is a region of it, by the feature's number; masks may overlap.
        pixels: the picture itself; ``None`` for a result that was read from a file without pixels.
        fill: the fill of absent pixels, as the user named it.
        digest: hash of the pixels, as that of ``Media``; empty if it is not known.
    """

    name: str
    width: int
    height: int
    regions: Mapping[int, Bool[np.ndarray, "H W"]] = field(repr=False)
    pixels: UInt8[np.ndarray, "H W 3"] | None = field(default=None, repr=False)
    fill: str = ""
    digest: str = ""

"""The contract of fills."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from jaxtyping import Bool, UInt8

from apportion.hooks.object_check import object_faults
from apportion.protocols.pictures import Fill
from apportion.testing.contract import Contract
from apportion.testing.pictures import SIZES, absent_pixels, sample_pictures
from apportion.testing.randomness import only_its_own_generator

__all__ = ["FillContract"]


class FillContract(Contract):
    """Contract of fills. Subclass it, provide a fixture ``fill``, and set attributes that describe it.

    Attributes:
        drawn: the fill draws from its seed.
        hides: replacements do not depend on the content of absent pixels, as long as some pixels are present. A mean of
            the whole picture does.
    """

    drawn: ClassVar[bool] = False
    hides: ClassVar[bool] = False

    @pytest.fixture
    def fill(self) -> Fill:
        """Your fill."""
        raise NotImplementedError("Define a fixture `fill` that returns your fill.")

    def filled(
        self,
        fill: Fill,
        pixels: UInt8[np.ndarray, "H W 3"],
        absent: Bool[np.ndarray, "H W"],
        seed: int = 0,
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Fill as apportion does, and check dtype and shape."""
        found = fill.fill(pixels, absent, seed)
        assert isinstance(found, np.ndarray), f"fill() returned {type(found).__name__}, not a NumPy array."
        assert found.dtype == np.uint8, f"fill() must return uint8, from 0 to 255; it returned {found.dtype}."
        assert found.shape == pixels.shape, f"fill() returned the shape {found.shape} for a picture of {pixels.shape}."
        return found.copy()

    def test_it_says_what_it_is(self, fill: Fill) -> None:
        """``once``, signature, docstring, and documentation of every option."""
        faults = object_faults("fills", fill)
        assert not faults, f"{type(fill).__name__} {' '.join(faults)}"

    @pytest.mark.parametrize("name", SIZES)
    def test_any_picture(self, fill: Fill, name: str) -> None:
        """Pictures of any size, with some, all or none of their pixels absent, give pictures of the same size."""
        pixels = sample_pictures()[name]
        for absent in absent_pixels(*pixels.shape[:2]).values():
            self.filled(fill, pixels, absent)

    def test_the_seed_decides_everything(self, fill: Fill) -> None:
        """The same seed gives the same pixels, whatever came between, and global random generators are unchanged."""
        pictures = sample_pictures()
        pixels, wide = pictures["square"], pictures["wide"]
        absent = absent_pixels(*pixels.shape[:2])["a rectangle"]
        with only_its_own_generator():
            first = self.filled(fill, pixels, absent, 1)
            other = self.filled(fill, pixels, absent, 2)
            self.filled(fill, wide, absent_pixels(*wide.shape[:2])["a rectangle"])
        assert np.array_equal(first, self.filled(fill, pixels, absent, 1)), "The same seed gave other pixels."
        same = np.array_equal(first, other)
        if self.drawn:
            assert not same, "Two seeds gave the same pixels. Draw from `seed`."
        else:
            assert same, "Two seeds gave different pixels. Set `drawn = True` for a fill that draws."

    def test_the_picture_stays_as_it_was(self, fill: Fill) -> None:
        """The pixels and the mask are not changed, and may be read-only, as pixels of files are."""
        pixels = sample_pictures()["square"]
        absent = absent_pixels(*pixels.shape[:2])["scattered pixels"]
        before = pixels.copy(), absent.copy()
        self.filled(fill, pixels, absent)
        assert np.array_equal(pixels, before[0]), "fill() changed the picture that it was given. Return a new one."
        assert np.array_equal(absent, before[1]), "fill() changed the mask of absent pixels."
        pixels.flags.writeable = absent.flags.writeable = False
        self.filled(fill, pixels, absent)

    def test_once_is_enough(self, fill: Fill) -> None:
        """If ``once`` is true, the replacement does not depend on which pixels are absent."""
        if not fill.once:
            pytest.skip("the replacement is made for each coalition (`once = False`)")
        pixels = sample_pictures()["square"]
        masks = absent_pixels(*pixels.shape[:2])
        everywhere = self.filled(fill, pixels, masks["all pixels"])
        for name, absent in masks.items():
            same = np.array_equal(self.filled(fill, pixels, absent)[absent], everywhere[absent])
            assert same, f"With {name} absent, the replacement is another one. Set `once = False`."

    def test_absent_pixels_do_not_show_through(self, fill: Fill) -> None:
        """If ``hides`` is true, other contents of absent pixels give the same replacement."""
        if not self.hides:
            pytest.skip("the replacement may depend on absent pixels (`hides = False`)")
        for picture, pixels in sample_pictures().items():
            for name, absent in absent_pixels(*pixels.shape[:2]).items():
                if absent.all():
                    continue
                other = np.where(absent[..., None], 255 - pixels, pixels)
                first, second = (self.filled(fill, each, absent)[absent] for each in (pixels, other))
                assert np.array_equal(first, second), (
                    f"With {name} of the picture {picture!r} absent, their content changes the replacement."
                )

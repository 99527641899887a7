"""The contract of segmenters."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from jaxtyping import UInt8

from apportion.errors import InputError
from apportion.hooks.object_check import object_faults
from apportion.protocols.pictures import Region, Segmenter
from apportion.testing.contract import Contract
from apportion.testing.pictures import SIZES, SMALL, sample_pictures
from apportion.testing.randomness import only_its_own_generator

__all__ = ["SegmenterContract"]


class SegmenterContract(Contract):
    """Contract of segmenters. Subclass it, provide a fixture ``segmenter``, and set attributes that describe it.

    Override ``processor`` if the regions depend on the model.

    Attributes:
        covers: every pixel is in at least one region.
        disjoint: every pixel is in at most one region.
    """

    covers: ClassVar[bool] = True
    disjoint: ClassVar[bool] = True

    @pytest.fixture
    def segmenter(self) -> Segmenter:
        """Your segmenter."""
        raise NotImplementedError("Define a fixture `segmenter` that returns your segmenter.")

    def processor(self) -> Any:
        """The model's processor; ``None`` for a segmenter that looks at the picture only."""
        return None

    def segment(self, segmenter: Segmenter, pixels: UInt8[np.ndarray, "H W 3"]) -> list[Region]:
        """Divide a picture as apportion does, and check names and masks of the regions."""
        size = pixels.shape[:2]
        found = list(segmenter.segment(pixels, self.processor()))
        assert found, f"A picture of {size} pixels has no region. Return at least one."
        for region in found:
            assert isinstance(region, Region), f"segment() returned {region!r:.80}, not a Region."
            assert isinstance(region.name, str) and region.name.strip(), f"The name {region.name!r} is empty."
            assert "\n" not in region.name, f"Names must be one line, for tables; {region.name!r} is not."
            mask, label = region.mask, f"The mask of {region.name!r}"
            assert isinstance(mask, np.ndarray), f"{label} must be a NumPy array; it is a {type(mask).__name__}."
            assert mask.dtype == np.bool_, f"{label} must be an array of bool; it is one of {mask.dtype}."
            assert mask.shape == size, f"{label} has the shape {mask.shape}; the picture has {size} pixels."
            assert mask.any(), f"{label} is empty, so that the region has no effect. Leave it out."
        names = [region.name for region in found]
        assert len(set(names)) == len(names), f"Names must be distinct; they are {names}."
        return found

    def times_covered(self, segmenter: Segmenter) -> dict[str, Any]:
        """The number of regions that each pixel is in, ``Int[H, W]``, for pictures that the segmenter accepts."""
        found = {}
        for name, pixels in sample_pictures().items():
            try:
                found[name] = np.sum([region.mask for region in self.segment(segmenter, pixels)], axis=0)
            except InputError:
                assert name in SMALL
        return found

    def test_it_says_what_it_is(self, segmenter: Segmenter) -> None:
        """Signature, docstring, and documentation of every option."""
        faults = object_faults("segmenters", segmenter)
        assert not faults, f"{type(segmenter).__name__} {' '.join(faults)}"

    @pytest.mark.parametrize("name", SIZES)
    def test_any_picture(self, segmenter: Segmenter, name: str) -> None:
        """There are regions with distinct names and masks; only small pictures may be refused, by an ``InputError``."""
        try:
            self.segment(segmenter, sample_pictures()[name])
        except InputError:
            assert name in SMALL, f"It refuses a picture of {SIZES[name]} pixels ({name})."

    def test_every_pixel_is_in_a_region(self, segmenter: Segmenter) -> None:
        """No pixel is left out, so that the whole picture can be absent."""
        if not self.covers:
            pytest.skip("pixels in no region are always present (`covers = False`)")
        for name, times in self.times_covered(segmenter).items():
            left = int((times == 0).sum())
            assert not left, f"{left} pixels of the picture {name!r} are in no region. Is that meant? `covers = False`."

    def test_no_pixel_is_in_two(self, segmenter: Segmenter) -> None:
        """Regions do not overlap, so that each pixel is absent with one feature only."""
        if not self.disjoint:
            pytest.skip("regions overlap (`disjoint = False`)")
        for name, times in self.times_covered(segmenter).items():
            shared = int((times > 1).sum())
            assert not shared, (
                f"{shared} pixels of the picture {name!r} are in several regions. Is that meant? `disjoint = False`."
            )

    def test_the_picture_decides_everything(self, segmenter: Segmenter) -> None:
        """The same picture has the same regions, whatever came between, and global generators are unchanged."""
        pixels = sample_pictures()
        with only_its_own_generator():
            first = self.segment(segmenter, pixels["square"])
            self.segment(segmenter, pixels["wide"])
        again = self.segment(segmenter, pixels["square"])
        assert [one.name for one in first] == [one.name for one in again], "The second time, names are others."
        same = all(np.array_equal(one.mask, other.mask) for one, other in zip(first, again, strict=True))
        assert same, "The second time, masks are others."

    def test_the_picture_stays_as_it_was(self, segmenter: Segmenter) -> None:
        """The pixels are not changed, and may be read-only, as those of files are."""
        pixels = sample_pictures()["square"]
        before = pixels.copy()
        self.segment(segmenter, pixels)
        assert np.array_equal(pixels, before), "segment() changed the picture that it was given."
        pixels.flags.writeable = False
        self.segment(segmenter, pixels)

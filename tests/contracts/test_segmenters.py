"""The built-in segmenters keep the contract that plugin authors subclass."""

from __future__ import annotations

from typing import Any

import pytest

from apportion.hooks.manager import installed_plugins
from apportion.testing import SegmenterContract, tiny_pictures


class BuiltIn(SegmenterContract):
    """The segmenter that is registered under ``name``, with the options of ``short``."""

    name: str
    short = ""

    @pytest.fixture
    def segmenter(self) -> object:
        return installed_plugins().make("segmenters", f"{self.name}:{self.short}")


class TestGrid(BuiltIn):
    name = "grid"


class TestOblongGrid(TestGrid):
    short = "3x5"


class TestSlic(BuiltIn):
    name = "slic"


class TestFewSuperpixels(TestSlic):
    short = "6,compactness=1"


class TestPatches(BuiltIn):
    name = "patches"
    family = "llava"

    def processor(self) -> Any:
        return tiny_pictures.processor(self.family)


class TestPatchesOfAnySize(TestPatches):
    family = "qwen2_5_vl"


class TestPatchesOfASquare(TestPatches):
    family = "paligemma"


class TestPooledPatches(TestPatches):
    family = "gemma3"

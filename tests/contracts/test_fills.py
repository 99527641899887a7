"""The built-in fills keep the contract that plugin authors subclass."""

from __future__ import annotations

import numpy as np
import pytest

from apportion.hooks.manager import installed_plugins
from apportion.testing import FillContract
from apportion.testing.pictures import sample_pictures
from apportion_plugins.pictures.fills import Colour, Replacement


class BuiltIn(FillContract):
    """The fill that is registered under ``name``, with the options of ``short``."""

    name: str
    short = ""

    @pytest.fixture
    def fill(self) -> object:
        return installed_plugins().make("fills", f"{self.name}:{self.short}")


class TestMean(BuiltIn):
    name = "mean"


class TestLocalMean(BuiltIn):
    name = "local_mean"


class TestBlur(BuiltIn):
    name = "blur"


class TestWideBlur(TestBlur):
    short = "20"


class TestBlack(BuiltIn):
    name = "black"
    hides = True


class TestWhite(BuiltIn):
    name = "white"
    hides = True


class TestNoise(BuiltIn):
    name = "noise"
    drawn = True


class TestInpaint(BuiltIn):
    name = "inpaint"
    hides = True


class TestInpaintFromAfar(TestInpaint):
    short = "radius=9.5"


class TestColour(FillContract):
    hides = True

    @pytest.fixture
    def fill(self) -> Colour:
        return Colour((10, 20, 30))


class TestAnotherPicture(FillContract):
    hides = True

    @pytest.fixture
    def fill(self) -> Replacement:
        return Replacement(np.flip(sample_pictures()["wide"], axis=0))

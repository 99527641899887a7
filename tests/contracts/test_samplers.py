"""The built-in samplers keep the contract."""

from __future__ import annotations

import pytest

from apportion.testing import SamplerContract
from apportion_plugins.samplers.permutation import PermutationSampler


class TestPermutation(SamplerContract):
    name = "permutation"

    @pytest.fixture
    def sampler(self) -> PermutationSampler:
        return PermutationSampler()

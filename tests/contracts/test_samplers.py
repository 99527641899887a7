"""The built-in samplers keep the contract."""

from __future__ import annotations

import pytest

from apportion.testing import SamplerContract
from apportion_plugins.samplers.bernoulli import BernoulliSampler
from apportion_plugins.samplers.informative import InformativeSampler
from apportion_plugins.samplers.kernel import KernelSampler
from apportion_plugins.samplers.leverage import LeverageSampler
from apportion_plugins.samplers.permutation import PermutationSampler


class TestPermutation(SamplerContract):
    name = "permutation"

    @pytest.fixture
    def sampler(self) -> PermutationSampler:
        return PermutationSampler()


class TestBernoulli(SamplerContract):
    name = "bernoulli"

    @pytest.fixture
    def sampler(self) -> BernoulliSampler:
        return BernoulliSampler()


class TestKernel(SamplerContract):
    name = "kernel"

    @pytest.fixture
    def sampler(self) -> KernelSampler:
        return KernelSampler()


class TestLeverage(SamplerContract):
    name = "leverage"

    @pytest.fixture
    def sampler(self) -> LeverageSampler:
        return LeverageSampler()


class TestInformative(SamplerContract):
    name = "informative"

    @pytest.fixture
    def sampler(self) -> InformativeSampler:
        return InformativeSampler()

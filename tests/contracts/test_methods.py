"""The built-in methods keep the contract that plugin authors subclass."""

from __future__ import annotations

import pytest
import torch

from apportion.testing import KnownGame, MethodContract
from apportion_plugins.methods.ablation import Ablation
from apportion_plugins.methods.banzhaf import Banzhaf
from apportion_plugins.methods.gp_shap import GaussianProcessShap
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.methods.lime import Lime
from apportion_plugins.methods.occlusion import Occlusion
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.methods.shapley import ExactShapley
from apportion_plugins.samplers.bernoulli import BernoulliSampler
from apportion_plugins.samplers.informative import InformativeSampler
from apportion_plugins.samplers.kernel import KernelSampler
from apportion_plugins.samplers.leverage import LeverageSampler


class TestAblation(MethodContract):
    name = "ablation"
    sampled = False

    @pytest.fixture
    def method(self) -> Ablation:
        return Ablation()


class TestShapley(MethodContract):
    name = "shapley"
    sampled = False

    @pytest.fixture
    def method(self) -> ExactShapley:
        return ExactShapley()


class TestPermutation(MethodContract):
    name = "permutation"
    promises_errors = True

    @pytest.fixture
    def method(self) -> PermutationShapley:
        return PermutationShapley()


class TestPermutationInSingleOrders(TestPermutation):
    options = {"antithetic": False}


class TestKernelShap(MethodContract):
    name = "kernel_shap"
    options = {"sampler": LeverageSampler()}
    promises_errors = True
    bias = 0.03

    @pytest.fixture
    def method(self) -> KernelShap:
        return KernelShap()


class TestKernelShapFromTheKernel(TestKernelShap):
    options = {"sampler": KernelSampler()}


class TestGaussianProcessShap(MethodContract):
    name = "gp_shap"
    options = {"sampler": InformativeSampler()}
    promises_errors = True
    bias = 0.03

    @pytest.fixture
    def method(self) -> GaussianProcessShap:
        return GaussianProcessShap()


class TestGaussianProcessShapOnLeveragePairs(TestGaussianProcessShap):
    options = {"sampler": LeverageSampler()}


class TestBanzhaf(MethodContract):
    name = "banzhaf"
    options = {"sampler": BernoulliSampler()}
    promises_errors = True
    bias = 0.03

    @pytest.fixture
    def method(self) -> Banzhaf:
        return Banzhaf()


class TestOcclusion(MethodContract):
    name = "occlusion"
    sampled = False
    symmetric = False

    @pytest.fixture
    def method(self) -> Occlusion:
        return Occlusion()


class TestOcclusionOfOne(TestOcclusion):
    """A window of one is leave-one-out."""

    options = {"window": 1}
    symmetric = True

    def truth(self, game: KnownGame, estimand: str) -> torch.Tensor | None:
        return game.truth("leave-one-out")


class TestLime(MethodContract):
    name = "lime"
    options = {"sampler": BernoulliSampler()}
    promises_errors = True

    @pytest.fixture
    def method(self) -> Lime:
        return Lime()

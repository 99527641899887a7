"""The built-in methods keep the contract that plugin authors subclass."""

from __future__ import annotations

import pytest

from apportion.testing import MethodContract
from apportion_plugins.methods.ablation import Ablation
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.methods.shapley import ExactShapley


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

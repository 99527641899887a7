"""The built-in methods that look inside the model keep the contract that plugin authors subclass."""

from __future__ import annotations

import pytest

from apportion.testing import WhiteBoxMethodContract
from apportion_plugins.methods.attention import Attention
from apportion_plugins.methods.deeplift import DeepLift, LayerDeepLift
from apportion_plugins.methods.discretized_integrated_gradients import DiscretizedIntegratedGradients
from apportion_plugins.methods.gradient_shap import GradientShap
from apportion_plugins.methods.integrated_gradients import IntegratedGradients
from apportion_plugins.methods.layer_gradient_shap import LayerGradientShap
from apportion_plugins.methods.layer_gradient_x_activation import LayerGradientXActivation
from apportion_plugins.methods.layer_integrated_gradients import LayerIntegratedGradients
from apportion_plugins.methods.saliency import InputXGradient, Saliency
from apportion_plugins.methods.sequential_integrated_gradients import SequentialIntegratedGradients
from apportion_plugins.methods.value_zeroing import ValueZeroing

ZERO = {"baseline": "zero"}


class TestSaliency(WhiteBoxMethodContract):
    name = "saliency"
    signed = linear = additive = False

    @pytest.fixture
    def method(self) -> Saliency:
        return Saliency()


class TestInputXGradient(WhiteBoxMethodContract):
    name = "input_x_gradient"

    @pytest.fixture
    def method(self) -> InputXGradient:
        return InputXGradient()


class TestIntegratedGradients(WhiteBoxMethodContract):
    name = "integrated_gradients"
    options = {**ZERO, "steps": 16}
    complete = True

    @pytest.fixture
    def method(self) -> IntegratedGradients:
        return IntegratedGradients()


class TestGradientShap(WhiteBoxMethodContract):
    name = "gradient_shap"
    options = {**ZERO, "n_samples": 16}
    sampled = complete = True
    tolerance = 0.3

    @pytest.fixture
    def method(self) -> GradientShap:
        return GradientShap()


class TestDiscretizedIntegratedGradients(WhiteBoxMethodContract):
    name = "discretized_integrated_gradients"
    options = {"steps": 8}

    @pytest.fixture
    def method(self) -> DiscretizedIntegratedGradients:
        return DiscretizedIntegratedGradients()


class TestSequentialIntegratedGradients(WhiteBoxMethodContract):
    name = "sequential_integrated_gradients"
    options = {"steps": 4}
    additive = False

    @pytest.fixture
    def method(self) -> SequentialIntegratedGradients:
        return SequentialIntegratedGradients()


class TestDeepLift(WhiteBoxMethodContract):
    """The rescale rule shares out each module's change, but not those of the two products in attention."""

    name = "deeplift"
    options = ZERO
    complete = True
    tolerance = 0.3

    @pytest.fixture
    def method(self) -> DeepLift:
        return DeepLift()


class TestLayerIntegratedGradients(WhiteBoxMethodContract):
    name = "layer_integrated_gradients"
    options = {**ZERO, "steps": 16}
    complete = True

    @pytest.fixture
    def method(self) -> LayerIntegratedGradients:
        return LayerIntegratedGradients()


class TestLayerGradientXActivation(WhiteBoxMethodContract):
    name = "layer_gradient_x_activation"

    @pytest.fixture
    def method(self) -> LayerGradientXActivation:
        return LayerGradientXActivation()


class TestLayerGradientShap(WhiteBoxMethodContract):
    name = "layer_gradient_shap"
    options = {**ZERO, "n_samples": 16}
    sampled = complete = True
    tolerance = 0.3

    @pytest.fixture
    def method(self) -> LayerGradientShap:
        return LayerGradientShap()


class TestLayerDeepLift(WhiteBoxMethodContract):
    name = "layer_deeplift"
    options = ZERO
    complete = True
    tolerance = 0.3

    @pytest.fixture
    def method(self) -> LayerDeepLift:
        return LayerDeepLift()


class TestAttention(WhiteBoxMethodContract):
    name = "attention"
    signed = explains_score = linear = False

    @pytest.fixture
    def method(self) -> Attention:
        return Attention()


class TestAttentionRolledOut(TestAttention):
    options = {"aggregate_layers": "rollout"}


class TestValueZeroing(WhiteBoxMethodContract):
    name = "value_zeroing"
    signed = explains_score = linear = additive = False

    @pytest.fixture
    def method(self) -> ValueZeroing:
        return ValueZeroing()


class TestValueZeroingRolledOut(TestValueZeroing):
    options = {"aggregate_layers": "rollout"}

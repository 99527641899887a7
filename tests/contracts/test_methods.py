"""The built-in methods keep the contract that plugin authors subclass."""

from __future__ import annotations

import pytest
import torch

import apportion as ap
from apportion.testing import KnownGame, MethodContract, games
from apportion_plugins.methods.ablation import Ablation
from apportion_plugins.methods.banzhaf import Banzhaf
from apportion_plugins.methods.captum import CaptumKernelShap, CaptumLime
from apportion_plugins.methods.context_cite import ContextCite
from apportion_plugins.methods.gp_shap import GaussianProcessShap
from apportion_plugins.methods.hierarchical import Hierarchical
from apportion_plugins.methods.interactions import Interactions
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.methods.lime import Lime
from apportion_plugins.methods.occlusion import Occlusion
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.methods.reagent import Reagent
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


class TestHierarchical(MethodContract):
    """Where every feature is reached its value is leave-one-out."""

    name = "hierarchical"
    sampled = False
    symmetric = False
    adaptive = True

    @pytest.fixture
    def method(self) -> Hierarchical:
        return Hierarchical()

    def truth(self, game: KnownGame, estimand: str) -> torch.Tensor | None:
        return game.truth("leave-one-out")


class TestHierarchicalOwen(MethodContract):
    """Up to eight features are one group, whose Owen values are Shapley values."""

    name = "hierarchical"
    options = {"scores": "owen"}
    symmetric = False
    adaptive = True

    @pytest.fixture
    def method(self) -> Hierarchical:
        return Hierarchical()

    def truth(self, game: KnownGame, estimand: str) -> torch.Tensor | None:
        return game.shapley if game.n <= 8 else None


class TestInteractions(MethodContract):
    name = "interactions"
    promises_errors = True
    budget = 160
    bias = 0.03

    @pytest.fixture
    def method(self) -> Interactions:
        return Interactions()


class TestBanzhafInteractions(TestInteractions):
    options = {"index": "banzhaf"}


class TestCaptumLime(MethodContract):
    name = "captum_lime"
    promises_errors = True

    @pytest.fixture
    def method(self) -> CaptumLime:
        return CaptumLime()


class TestCaptumKernelShap(MethodContract):
    name = "captum_kernel_shap"
    promises_errors = True
    bias = 0.03

    @pytest.fixture
    def method(self) -> CaptumKernelShap:
        return CaptumKernelShap()


class TestContextCite(MethodContract):
    """Far below 0 the logit of a log-probability is the log-probability itself, so the games are played there."""

    name = "context_cite"
    options = {"sampler": BernoulliSampler()}
    promises_errors = True
    bias = 0.03

    @pytest.fixture
    def method(self) -> ContextCite:
        return ContextCite()

    def run(self, method: ap.Method, game: ap.Game, *, budget: int | None, seed: int = 0) -> ap.Estimate:
        low = ap.Game.from_function(lambda mask: game.values(mask) - 1000.0, game.n_features, n_outputs=game.n_outputs)
        return super().run(method, low, budget=budget, seed=seed)

    def truth(self, game: KnownGame, estimand: str) -> torch.Tensor:
        """With all coalitions the columns are orthogonal: Banzhaf values, each 2α nearer to 0."""
        banzhaf = game.truth("Banzhaf value")
        return banzhaf.sign() * (banzhaf.abs() - 0.02).clamp_min(0)

    def test_every_output_gets_its_column(self, method: ContextCite) -> None:
        """The first of three outputs is a response of two tokens, which is shrunk twice as much."""
        parts = [games.random_moebius(6, 3, seed=seed) for seed in (1, 2, 3)]
        together = ap.Game.from_function(lambda mask: torch.stack([part(mask) for part in parts], 1), 6, n_outputs=3)
        found = self.run(method, together, budget=self.budget).values
        for k, alpha in enumerate((0.02, 0.01, 0.01)):
            low = ap.Game.from_function(lambda mask, part=parts[k]: part(mask) - 1000.0, 6)
            rng = torch.Generator().manual_seed(0)
            alone = method.run(low, budget=self.budget, rng=rng, **self.options, alpha=alpha).values[:, 0]
            assert torch.allclose(found[:, k], alone, atol=1e-8)


class TestReagent(MethodContract):
    """Asks for prompts with other tokens, not for coalitions; its own tests know what it finds."""

    name = "reagent"
    options = {"num_probes": 4, "max_probe_steps": 3}
    adaptive = True
    signed = False

    @pytest.fixture
    def method(self) -> Reagent:
        return Reagent()

"""Whether the top features would come first again: agreement of bootstrap replicates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.game.method_runner import check_estimate
from apportion.results.ranking import top_agreement, top_size
from apportion.testing import games
from apportion.testing.games import KnownGame
from apportion.testing.results import sample_results
from apportion_plugins.methods.banzhaf import Banzhaf
from apportion_plugins.methods.captum import CaptumKernelShap, CaptumLime
from apportion_plugins.methods.context_cite import ContextCite
from apportion_plugins.methods.hierarchical import Hierarchical
from apportion_plugins.methods.interactions import Interactions
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.methods.lime import Lime
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.samplers.bernoulli import BernoulliSampler
from apportion_plugins.samplers.leverage import LeverageSampler
from apportion_plugins.visualizers.facts import summary

N = 12
METHODS = {
    "kernel_shap": (KernelShap(), 64, {"sampler": LeverageSampler()}),
    "captum_kernel_shap": (CaptumKernelShap(), 200, {}),
    "banzhaf": (Banzhaf(), 64, {"sampler": BernoulliSampler()}),
    "interactions": (Interactions(), 320, {}),
    "permutation": (PermutationShapley(), 200, {}),
    "owen": (Hierarchical(), 150, {"scores": "owen", "branching": 4, "orders": 8}),
    "lime": (Lime(), 64, {"sampler": BernoulliSampler()}),
    "captum_lime": (CaptumLime(), 64, {}),
    "context_cite": (ContextCite(), 64, {"sampler": BernoulliSampler()}),
}


def noisy(main: list[float], noise: float, seed: int = 0) -> KnownGame:
    """Main effects, and interactions of three features that no pair of coalitions cancels."""
    rest = games.random_moebius(len(main), 3, seed=seed)
    triples = {members: noise * c for members, c in rest.coefficients.items() if len(members) == 3}
    return KnownGame("noisy", len(main), {(i,): c for i, c in enumerate(main)} | triples)


def alike(estimand: str, noise: float, seed: int) -> KnownGame:
    """The same interactions, and main effects that give every feature the value 2."""
    found = noisy([0.0] * N, noise, seed)
    truth = found.truth(estimand if estimand in games.ESTIMANDS else "Banzhaf value")
    return KnownGame("alike", N, found.coefficients | {(i,): 2 - float(truth[i]) for i in range(N)})


def run(name: str, known: KnownGame, seed: int = 0) -> ap.Estimate:
    method, budget, options = METHODS[name]
    scale = 0.05 if name == "context_cite" else 1.0  # log-probabilities

    def values(mask: torch.Tensor) -> torch.Tensor:
        found = scale * known(mask)
        return torch.stack([found - 20, 2 * found - 50], dim=1)

    game = ap.Game.from_function(values, known.n, n_outputs=2)
    estimate = method.run(game, budget=budget, rng=torch.Generator().manual_seed(seed), **options)
    return check_estimate(name, estimate, known.n, 2)


def stable(estimate: ap.Estimate) -> float:
    values, errors = estimate.values[:, 0].numpy(), estimate.std_error[:, 0].numpy()
    return float(top_agreement(values, errors, estimate.replicates.numpy())[top_size(values) - 1])


@pytest.mark.parametrize("name", METHODS)
def test_replicates_spread_as_the_errors_say(name: str) -> None:
    estimate = run(name, noisy([1.0] * N, 0.5))
    spread, errors = estimate.replicates.std(0), estimate.std_error[:, 0]
    assert (errors > 0).any()
    assert torch.allclose(estimate.replicates.mean(0), estimate.values[:, 0], atol=1e-9)
    assert float((spread - errors).norm() / errors.norm()) < 0.15


@pytest.mark.parametrize("name", METHODS)
def test_a_clear_top_is_stable_and_a_tie_is_not(name: str) -> None:
    clear = [stable(run(name, noisy([9.0, -9.0, 9.0] + [0.3] * (N - 3), 0.2), seed)) for seed in range(3)]
    estimand = "Shapley value" if name == "owen" else METHODS[name][0].estimand
    tied = [stable(run(name, alike(estimand, 0.5, seed), seed)) for seed in range(5)]
    assert min(clear) > 0.9
    assert max(tied) < 0.8 and np.mean(tied) < 0.5


def test_replicates_take_nothing_from_the_methods_generator() -> None:
    known = noisy([1.0] * N, 0.5)
    rng = torch.Generator().manual_seed(0)
    PermutationShapley().run(ap.Game.from_function(known, N), budget=100, rng=rng)
    plain = torch.Generator().manual_seed(0)
    PermutationShapley().run(ap.Game.from_function(lambda mask: known(mask) * 0, N), budget=100, rng=plain)
    assert torch.equal(rng.get_state(), plain.get_state())
    first, again = (run("kernel_shap", known).replicates for _ in range(2))
    assert torch.equal(first, again)


def test_a_stable_top_is_more_often_the_true_one() -> None:
    """Over 120 games whose top features are more or less apart."""
    sure, unsure = [], []
    for seed in range(120):
        draw = np.random.default_rng(seed)
        known = noisy(draw.normal(size=10).tolist(), 0.2, seed)
        estimate = PermutationShapley().run(
            ap.Game.from_function(known, 10), budget=100, rng=torch.Generator().manual_seed(seed)
        )
        truth = known.truth("Shapley value").abs()
        same = set(truth.topk(3).indices.tolist()) == set(estimate.values[:, 0].abs().topk(3).indices.tolist())
        share = stable(estimate)
        (sure if share > 0.95 else unsure if share < 0.6 else []).append(same)
    assert len(sure) >= 15 and len(unsure) >= 15
    assert np.mean(sure) > 0.9 and np.mean(sure) > np.mean(unsure) + 0.2


def test_agreement_by_hand() -> None:
    values = np.array([3.0, -5.0, 1.0])
    replicates = np.array([[3.0, -5.0, 1.0], [6.0, -5.0, 1.0], [0.5, 5.0, 1.0], [3.0, 1.0, 2.0]])
    assert top_agreement(values, np.ones(3), replicates).tolist() == [0.5, 0.5, 1.0]
    assert top_agreement(values, None).tolist() == [1.0, 1.0, 1.0]
    assert top_agreement(values, np.array([1.0, np.nan, 1.0]), replicates) is None
    assert top_agreement(np.ones(1), np.ones(1)).tolist() == [1.0]
    assert top_agreement(values, np.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    assert top_agreement(np.array([9.0, 1.0, 1.0]), np.full(3, 0.5)) == pytest.approx([1.0, 0.5, 1.0], abs=0.05)


def test_the_top_ends_where_features_stand_apart() -> None:
    for values, top in (
        ([4, 3, 2, 1], 3), ([1, 1], 2), ([5, 3, 0, 0, 0], 2), ([2, 2, 2, 2, -2, 1], 5), ([0, 0, 0, 0], 4), ([7], 1),
    ):  # fmt: skip
        assert top_size(np.array(values, dtype=float)) == top, values


def test_results_keep_it_and_say_it(explainer: ap.Explainer, tmp_path: Path) -> None:
    sampled = explainer.attribute("one two three four five six seven", " t", features="words", budget=20)
    assert sampled.std_error is not None and sampled.top_agreement.shape == (7,)
    assert sampled.ranking_stable == sampled.top_agreement[2]
    again = ap.Attribution.load(sampled.save(tmp_path / "r.json"))
    assert np.array_equal(again.top_agreement, sampled.top_agreement)
    exact = explainer.attribute("one two three four", " t", features="words")
    assert exact.ranking_stable == 1.0
    assert "ranking" not in dict(summary(exact))
    assert "the top 3 are the same in" in dict(summary(sampled))["ranking"]
    assert sample_results()["bare"].ranking_stable is None


@pytest.mark.parametrize(
    ("replicates", "message"),
    [
        (torch.zeros(5, 3), "replicates of shape (5, 3)"),
        (torch.zeros(1, 2), "two or more rows of 2"),
        (torch.full((5, 2), torch.nan), "not finite"),
        ([[1.0, 2.0]], "not a real tensor"),
    ],
)
def test_wrong_replicates_are_refused(replicates: object, message: str) -> None:
    zeros = torch.zeros(2, 1)
    with pytest.raises(ap.PluginError) as caught:
        check_estimate("mine", ap.Estimate(zeros, zeros, replicates=replicates), 2, 1)
    assert message in str(caught.value)
    with pytest.raises(ap.PluginError, match="without standard errors"):
        check_estimate("mine", ap.Estimate(zeros, replicates=torch.zeros(4, 2)), 2, 1)

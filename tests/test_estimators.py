"""Estimators beside their estimands: error against evaluations, and how often intervals hold the truth.

``pytest tests/test_estimators.py -s`` prints the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import apportion as ap
from apportion.testing import games
from apportion.testing.games import KnownGame
from apportion_plugins.methods.banzhaf import Banzhaf
from apportion_plugins.methods.gp_shap import GaussianProcessShap
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.methods.lime import Lime
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.methods.shapley import ExactShapley, shapley_of_table
from apportion_plugins.samplers.bernoulli import BernoulliSampler
from apportion_plugins.samplers.informative import InformativeSampler
from apportion_plugins.samplers.kernel import KernelSampler
from apportion_plugins.samplers.leverage import LeverageSampler
from apportion_plugins.samplers.tables import all_coalitions


@dataclass(frozen=True)
class Estimator:
    """A sampled method with its options.

    Attributes:
        pairs: coalitions come with their complements, so that order-2 games are exact.
        own_truth: the estimand is what it finds with every coalition, not a value that the games know.
    """

    name: str
    method: Any
    options: dict[str, Any] = field(default_factory=dict)
    pairs: bool = True
    own_truth: bool = False

    def run(self, known: KnownGame, budget: int, seed: int) -> ap.Estimate:
        game = ap.Game.from_function(lookup(known), known.n)
        estimate = self.method.run(game, budget=budget, rng=torch.Generator().manual_seed(seed), **self.options)
        assert game.evaluations <= budget
        return estimate

    def truth(self, known: KnownGame) -> torch.Tensor:
        if self.own_truth:
            return self.run(known, 2**known.n, 0).values[:, 0]
        found = known.truth(self.method.estimand)
        assert found is not None
        return found


ESTIMATORS = [
    Estimator("gp_shap", GaussianProcessShap(), {"sampler": InformativeSampler()}),
    Estimator("gp_shap, leverage", GaussianProcessShap(), {"sampler": LeverageSampler()}),
    Estimator("kernel_shap", KernelShap(), {"sampler": LeverageSampler()}),
    Estimator("kernel_shap, kernel", KernelShap(), {"sampler": KernelSampler()}),
    Estimator("permutation", PermutationShapley()),
    Estimator("permutation, single", PermutationShapley(), {"antithetic": False}, pairs=False),
    Estimator("banzhaf", Banzhaf(), {"sampler": BernoulliSampler()}),
    Estimator("lime", Lime(), {"sampler": BernoulliSampler()}, pairs=False, own_truth=True),
]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.name)
SLOW = {"gp_shap", "lime"}
"""Two hundred fits of these take more than a few seconds."""

_TABLES: dict[object, torch.Tensor] = {}


def lookup(known: KnownGame) -> Callable[[torch.Tensor], torch.Tensor]:
    """The game as a table: summing a thousand sets for every coalition takes longer than all else here."""
    key = known.n, tuple(known.coefficients.items())
    if key not in _TABLES:
        _TABLES[key] = known(all_coalitions(known.n))
    weights = 1 << torch.arange(known.n)
    return lambda mask: _TABLES[key][(mask.long() * weights).sum(1)]


@pytest.mark.parametrize("known", games.known_games(), ids=lambda g: g.name)
def test_exact_methods_are_exact(known: KnownGame) -> None:
    """Every method whose budget allows all coalitions, within 1e-9."""
    exact = [e for e in ESTIMATORS if not e.own_truth]
    for estimator in [*exact, Estimator("shapley", ExactShapley())]:
        estimate = estimator.run(known, 2**known.n, 0)
        assert float((estimate.values[:, 0] - estimator.truth(known)).abs().max()) <= 1e-9, estimator.name


@pytest.mark.parametrize("n", [3, 7, 12])
def test_pairs_are_exact_up_to_second_order(n: int) -> None:
    """With budgets that determine the regression, and with one pair of orders."""
    known = games.random_moebius(n, 2, seed=n)
    for estimator in ESTIMATORS:
        if estimator.pairs:
            budget = min(2**n, 2 * n if estimator.name == "permutation" else 6 * n)
            found = estimator.run(known, budget, 1).values[:, 0]
            assert torch.allclose(found, estimator.truth(known), atol=1e-9, rtol=0), estimator.name


@each_estimator
def test_the_error_falls_at_least_as_the_root_of_the_evaluations(estimator: Estimator) -> None:
    """Root mean squared errors over seeds, relative to the truth; slope on log–log scales."""
    known = games.random_moebius(12, 4, seed=1)
    truth = estimator.truth(known)
    budgets, seeds = (48, 96, 192, 384), 16
    errors = []
    for budget in budgets:
        found = torch.stack([estimator.run(known, budget, seed).values[:, 0] for seed in range(seeds)])
        errors.append(float((found - truth).square().sum(1).mean().sqrt() / truth.norm()))
    x, y = (torch.tensor([math.log(v) for v in values], dtype=torch.float64) for values in (budgets, errors))
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    shown = "  ".join(f"{budget}: {error:.2e}" for budget, error in zip(budgets, errors, strict=True))
    print(f"\n{estimator.name:20s} error  {shown}  slope {slope:+.2f}")
    assert slope <= -0.45, f"{estimator.name}: {shown}"


@pytest.mark.parametrize(
    "estimator",
    # The errors of gp_shap do not depend on who chose the pairs; once is enough of what takes a minute.
    [
        pytest.param(e, id=e.name, marks=pytest.mark.slow if e.name in SLOW else ())
        for e in ESTIMATORS
        if e.name != "gp_shap, leverage"
    ],
)
@pytest.mark.timeout(400)
def test_intervals_hold_the_truth(estimator: Estimator) -> None:
    """Over 200 seeds, ± 1.96 standard errors hold the truth for 90–99 % of all features and seeds."""
    known = games.random_moebius(10, 4, seed=7)
    truth = estimator.truth(known)
    for budget in (60, 160):
        estimates = [estimator.run(known, budget, seed) for seed in range(200)]
        values = torch.stack([estimate.values[:, 0] for estimate in estimates])
        errors = torch.stack([estimate.std_error[:, 0] for estimate in estimates])
        share = float(((values - truth).abs() <= 1.96 * errors).double().mean())
        ratio = float(errors.square().mean().sqrt() / (values - truth).square().mean().sqrt())
        print(f"\n{estimator.name:20s} coverage at {budget}: {share:.1%}, standard error ÷ error {ratio:.2f}")
        assert 0.90 <= share <= 0.99, f"{estimator.name} with {budget}: {share:.1%}"


def test_intervals_of_gp_shap_hold_where_the_game_is_steeper_in_some_places() -> None:
    """Without the jackknife, they hold 83 % of the values of these games."""
    n, held = 8, []
    for number in range(4):
        weight = torch.randn(n, generator=torch.Generator().manual_seed(number)).double()

        def function(mask: torch.Tensor, weight: torch.Tensor = weight) -> torch.Tensor:
            return -torch.log(0.02 + torch.sigmoid(6 * (mask.double() @ weight) - 6))

        truth = shapley_of_table(function(all_coalitions(n))[:, None])[:, 0]
        for seed in range(6):
            game, rng = ap.Game.from_function(function, n), torch.Generator().manual_seed(seed)
            found = GaussianProcessShap().run(game, budget=10 * n, rng=rng, sampler=InformativeSampler())
            assert found.std_error is not None
            held.append((found.values[:, 0] - truth).abs() <= 1.96 * found.std_error[:, 0])
    assert float(torch.stack(held).double().mean()) >= 0.92

"""Methods on games with known answers: exact ones are exact, sampled ones converge and know their error."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.testing import games
from apportion.testing.explainers import tiny_explainer
from apportion_plugins.methods.ablation import Ablation
from apportion_plugins.methods.banzhaf import Banzhaf
from apportion_plugins.methods.context_cite import ContextCite
from apportion_plugins.methods.gp_shap import GaussianProcessShap
from apportion_plugins.methods.interaction_prior import covariance, equal_shapley_covariance, shapley_covariance, signs
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.methods.lime import Lime
from apportion_plugins.methods.occlusion import Occlusion
from apportion_plugins.methods.permutation import PermutationShapley
from apportion_plugins.methods.shapley import ExactShapley
from apportion_plugins.samplers.bernoulli import BernoulliSampler
from apportion_plugins.samplers.informative import InformativeSampler
from apportion_plugins.samplers.kernel import KernelSampler
from apportion_plugins.samplers.leverage import LeverageSampler
from apportion_plugins.samplers.permutation import PermutationSampler


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("known", games.known_games(), ids=lambda g: g.name)
def test_exact_shapley_on_known_games(known: games.KnownGame) -> None:
    game = ap.Game.from_function(known, known.n)
    estimate = ExactShapley().run(game, budget=None, rng=rng())
    assert torch.allclose(estimate.values[:, 0], known.shapley, atol=1e-9, rtol=0)
    assert estimate.std_error is None
    assert game.evaluations == 2**known.n


def test_exact_shapley_equals_all_orders() -> None:
    table = torch.randn(2**6, dtype=torch.float64, generator=rng())
    weights = 2 ** torch.arange(6)

    def function(mask: torch.Tensor) -> torch.Tensor:
        return table[(mask * weights).sum(1)]

    estimate = ExactShapley().run(ap.Game.from_function(function, 6), budget=64, rng=rng())
    assert torch.allclose(estimate.values[:, 0], games.brute_force_shapley(function, 6), atol=1e-9, rtol=0)


@pytest.mark.parametrize("known", games.known_games(8), ids=lambda g: g.name)
def test_ablation_is_the_loss_without_one_feature(known: games.KnownGame) -> None:
    game = ap.Game.from_function(known, known.n)
    estimate = Ablation().run(game, budget=None, rng=rng())
    everyone = torch.ones(1, known.n, dtype=torch.bool)
    for i in range(known.n):
        without = everyone.clone()
        without[0, i] = False
        assert estimate.values[i, 0] == known(everyone)[0] - known(without)[0]
    assert game.evaluations == known.n + 1


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("order", [1, 2])
def test_one_antithetic_pair_is_exact_up_to_second_order(n: int, order: int) -> None:
    known = games.random_moebius(n, min(order, n))
    game = ap.Game.from_function(known, n)
    estimate = PermutationShapley().run(game, budget=2 * n, rng=rng())
    assert torch.allclose(estimate.values[:, 0], known.shapley, atol=1e-9)
    assert game.evaluations == 2 * n if n > 1 else 2


def test_permutation_error_falls_with_the_budget() -> None:
    """Root mean squared error over seeds falls about as 1/√m."""
    known = games.random_moebius(10, 3)

    def error(budget: int) -> float:
        misses = []
        for seed in range(30):
            game = ap.Game.from_function(known, 10)
            found = PermutationShapley().run(game, budget=budget, rng=rng(seed)).values[:, 0]
            assert game.evaluations <= budget
            misses.append(float(((found - known.shapley) ** 2).mean()))
        return math.sqrt(sum(misses) / len(misses))

    small, large = error(40), error(640)
    assert large < small / 3


@pytest.mark.parametrize(("antithetic", "budget"), [(True, None), (False, None), (True, 34), (True, 48), (True, 90)])
def test_intervals_cover_the_truth(antithetic: bool, budget: int | None) -> None:
    """Over 200 seeds the 95 % intervals hold the truth in 90–99 % of cases, from two pairs on."""
    known = games.random_moebius(8, 4)
    covered = []
    for seed in range(200):
        game = ap.Game.from_function(known, 8)
        estimate = PermutationShapley().run(game, budget=None, rng=rng(seed), antithetic=antithetic, n_permutations=60)
        inside = (estimate.values[:, 0] - known.shapley).abs() <= 1.96 * estimate.std_error[:, 0]
        covered.append(inside.double().mean())
    assert 0.90 <= float(torch.stack(covered).mean()) <= 0.99


def test_every_output_gets_its_column() -> None:
    def function(mask: torch.Tensor) -> torch.Tensor:
        return torch.stack([mask.sum(1).double(), 3.0 * mask[:, 0]], 1)

    for method in (ExactShapley(), PermutationShapley(), Ablation()):
        game = ap.Game.from_function(function, 3, n_outputs=2)
        values = method.run(game, budget=None, rng=rng()).values
        assert torch.allclose(values, torch.tensor([[1.0, 3.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64))


def test_budgets_too_small_are_refused_with_the_number_needed() -> None:
    game = ap.Game.from_function(lambda mask: mask.sum(1).double(), 6)
    with pytest.raises(ap.BudgetError, match=r"6 features take 2\^6 = 64 evaluations, and the budget is 63"):
        ExactShapley().run(game, budget=63, rng=rng())
    with pytest.raises(ap.BudgetError, match="takes 7 evaluations, and the budget is 6"):
        Ablation().run(game, budget=6, rng=rng())
    with pytest.raises(ap.BudgetError, match="visits 12 coalitions, and the budget is 11"):
        PermutationShapley().run(game, budget=11, rng=rng())
    large = ap.Game.from_function(lambda mask: mask.sum(1).double(), 21)
    with pytest.raises(ap.BudgetError, match="2,097,152 evaluations, and the limit"):
        ExactShapley().run(large, budget=None, rng=rng())
    huge = ap.Game.from_function(lambda mask: mask.sum(1).double(), 15_000)
    with pytest.raises(ap.BudgetError, match=r"15,000 features take 2\^15000 evaluations, and the limit is 2\^20"):
        ExactShapley().run(huge, budget=None, rng=rng())
    with pytest.raises(ap.InputError, match=r"n_permutations=about 10\^4515 orders .* do not fit into memory"):
        PermutationShapley().run(huge, budget=None, rng=rng(), n_permutations=2**15_000)
    for wrong in (0, 3, True):
        with pytest.raises(ap.InputError, match="positive whole number, an even number"):
            PermutationShapley().run(game, budget=None, rng=rng(), n_permutations=wrong)
    assert game.evaluations == 0


def test_errors_are_unknown_after_one_pair() -> None:
    game = ap.Game.from_function(games.random_moebius(6, 3), 6)
    estimate = PermutationShapley().run(game, budget=12, rng=rng())
    assert estimate.std_error.isnan().all()


def test_a_budget_for_every_coalition_gives_exact_values() -> None:
    known = games.random_moebius(3, 3)
    game = ap.Game.from_function(known, 3)
    estimate = PermutationShapley().run(game, budget=10**9, rng=rng())
    assert game.evaluations == 8
    assert estimate.std_error is None
    assert torch.allclose(estimate.values[:, 0], known.shapley, atol=1e-12)
    assert estimate.notes == ("the budget covered every coalition, so the values are exact",)


def test_permutations_that_do_not_fit_are_said() -> None:
    game = ap.Game.from_function(games.random_moebius(8, 3), 8)
    estimate = PermutationShapley().run(game, budget=40, rng=rng(), n_permutations=100)
    walked = estimate.extras["n_permutations"]
    assert estimate.notes == (f"only {walked} of the 100 requested permutations fit the budget",)


def test_the_permutation_sampler_keeps_its_budget_and_gives_distinct_pairs() -> None:
    for budget in (12, 50, 64, 1000):
        drawn = PermutationSampler().sample(6, budget, rng())
        rows = {tuple(row) for row in drawn.mask.tolist()}
        assert len(rows) == len(drawn.mask) <= budget
        assert all(tuple(not on for on in row) in rows for row in rows)
        assert np.isfinite(drawn.weight.numpy()).all()
    with pytest.raises(ap.BudgetError, match="visits 12 coalitions"):
        PermutationSampler().sample(6, 11, rng())


@pytest.mark.parametrize("n", [7, 9, 12])
def test_regressions_are_exact_up_to_second_order(n: int) -> None:
    """Paired coalitions cancel the even part; what is left of second order is linear (arXiv 2601.18608)."""
    known = games.random_moebius(n, 2)
    for method, sampler, estimand in (
        (KernelShap(), LeverageSampler(), "Shapley value"),
        (KernelShap(), KernelSampler(), "Shapley value"),
        (Banzhaf(), BernoulliSampler(), "Banzhaf value"),
    ):
        game = ap.Game.from_function(known, n)
        estimate = method.run(game, budget=6 * n, rng=rng(), sampler=sampler)
        assert game.evaluations <= 6 * n
        assert torch.allclose(estimate.values[:, 0], known.truth(estimand), atol=1e-9)
        assert float(estimate.std_error.max()) < 1e-9


def test_kernel_shap_adds_up_and_beats_permutations_on_average() -> None:
    known = games.random_moebius(10, 4)

    def error(method: ap.Method, **options: object) -> float:
        found = [
            method.run(ap.Game.from_function(known, 10), budget=80, rng=rng(seed), **options).values[:, 0]
            for seed in range(20)
        ]
        return float((torch.stack(found) - known.shapley).pow(2).mean())

    ours = error(KernelShap(), sampler=LeverageSampler())
    assert ours < error(PermutationShapley())
    values = KernelShap().run(ap.Game.from_function(known, 10), budget=60, rng=rng(), sampler=LeverageSampler()).values
    ends = known(torch.tensor([[False] * 10, [True] * 10]))
    assert math.isclose(float(values.sum()), float(ends[1] - ends[0]), abs_tol=1e-9)


@pytest.mark.parametrize(
    "sampler", [LeverageSampler(), KernelSampler(), BernoulliSampler()], ids=lambda s: type(s).__name__
)
def test_a_larger_budget_continues_the_same_draws(sampler: ap.Sampler) -> None:
    rows = [
        {tuple(row) for row in sampler.sample(9, budget, rng(3)).mask.tolist()} for budget in (20, 21, 46, 100, 300)
    ]
    assert all(small <= large for small, large in itertools.pairwise(rows))


def test_leverage_serves_all_sizes_alike_without_repeats() -> None:
    drawn = LeverageSampler().sample(12, 200, rng())
    sizes = torch.bincount(drawn.mask.sum(1), minlength=13).tolist()
    assert sizes[0] == sizes[12] == 0
    assert sizes[1] == sizes[11] == 12
    assert max(sizes[2:11]) - min(sizes[2:11]) <= 2
    assert len(torch.unique(drawn.mask, dim=0)) == len(drawn.mask) == 200


def test_lime_is_the_lasso_of_its_coalitions() -> None:
    from sklearn.linear_model import Lasso

    known = games.random_moebius(8, 3)
    found = Lime().run(ap.Game.from_function(known, 8), budget=60, rng=rng(), sampler=BernoulliSampler())
    mask = BernoulliSampler().sample(8, 60, rng()).mask
    share = mask.double().mean(1).sqrt().numpy()
    weight = np.exp(-((1 - share) ** 2) / 2)
    expected = (
        Lasso(alpha=0.01, tol=1e-9, max_iter=20_000).fit(mask.double().numpy(), known(mask).numpy(), weight).coef_
    )
    assert np.allclose(found.values[:, 0].numpy(), expected, atol=1e-6)


def test_occlusion_covers_every_feature_by_windows() -> None:
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    game = ap.Game.from_function(lambda mask: (mask * weights).sum(1), 5)
    found = Occlusion().run(game, budget=None, rng=rng(), window=2).values[:, 0]
    assert found.tolist() == [3.0, 4.0, 6.0, 8.0, 9.0]
    assert game.evaluations == 5
    for wrong, message in (({"window": 0}, "at least 1"), ({"stride": 3}, "larger than window=2")):
        with pytest.raises(ap.InputError, match=message):
            Occlusion().run(game, budget=None, rng=rng(), **wrong)


def context_cites_solver(mask: np.ndarray, outputs: np.ndarray, tokens: int, tol: float = 1e-4) -> np.ndarray:
    """``LassoRegression.fit`` of context-cite 0.0.4, in full; its masks are float32, and ``tol`` scikit-learn's."""
    from sklearn.linear_model import Lasso
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scaler, lasso = StandardScaler(), Lasso(alpha=0.01, random_state=0, fit_intercept=True, tol=tol)
    make_pipeline(scaler, lasso).fit(mask, outputs / tokens)
    return lasso.coef_ / scaler.scale_ * tokens


@pytest.mark.parametrize("n", [9, 40])
def test_context_cite_is_the_lasso_of_its_reference(n: int) -> None:
    """A response of three tokens, likely enough for the logit to differ from the log-probability."""
    weights = torch.randn(n, 3, dtype=torch.float64, generator=rng(1))

    def function(mask: torch.Tensor) -> torch.Tensor:
        tokens = torch.nn.functional.logsigmoid(mask.double() @ weights + 1)
        return torch.cat([tokens.sum(1, keepdim=True), tokens], 1)

    found = ContextCite().run(
        ap.Game.from_function(function, n, n_outputs=4), budget=None, rng=rng(), sampler=BernoulliSampler()
    )
    mask = BernoulliSampler().sample(n, 64, rng()).mask
    odds = torch.special.logit(function(mask).exp()).numpy()
    for k, tokens in enumerate((3, 1, 1, 1)):
        expected = context_cites_solver(mask.double().numpy(), odds[:, k], tokens, 1e-9)
        assert np.allclose(found.values[:, k].numpy(), expected, atol=1e-6)
        as_it_is = context_cites_solver(mask.float().numpy(), odds[:, k], tokens)
        assert np.allclose(found.values[:, k].numpy(), as_it_is, atol=0.005)
        assert abs(found.values[:, k]).max() > 0.5


def test_context_cite_takes_log_probabilities_only() -> None:
    game = ap.Game.from_function(lambda mask: mask.double().mean(1), 4)
    with pytest.raises(ap.InputError, match=r"has the value 1, which is above 0. Use target_fn='log_prob'"):
        ContextCite().run(game, budget=None, rng=rng(), sampler=BernoulliSampler())
    certain = ap.Game.from_function(lambda mask: mask[:, 0].double() - 1, 4)
    found = ContextCite().run(certain, budget=None, rng=rng(), sampler=BernoulliSampler())
    assert found.values.argmax() == 0
    assert found.notes[0].startswith("the response or one of its tokens is certain for 8 of 16 coalitions")
    assert found.std_error is None


def test_more_coalitions_of_a_size_than_a_float_can_count() -> None:
    """C(1100, 550) is above 10^308."""
    drawn = LeverageSampler().sample(1100, 8, rng())
    assert drawn.mask.shape == (8, 1100)
    assert drawn.share is not None
    assert ((drawn.share > 0) & (drawn.share < 1)).all()
    game = ap.Game.from_function(lambda mask: mask.sum(1).double(), 1100)
    with pytest.raises(ap.BudgetError, match="at least 2200 evaluations, and the budget is 2000"):
        KernelShap().run(game, budget=2000, rng=rng(), sampler=LeverageSampler())


def test_gp_shap_does_not_mistake_noise_for_interactions() -> None:
    """Without noise in the model, more evaluations made the error larger: of near duplicates that disagree."""
    n = 60
    members = (torch.rand(n, 64, generator=rng(1)) < 0.5).double()
    weight = 1.0 / torch.arange(1, n + 1).double()

    def function(mask: torch.Tensor) -> torch.Tensor:
        parity = 1 - 2 * (((~mask).double() @ members) % 2)  # many products of many signs look like noise
        return torch.nn.functional.logsigmoid(5 * (mask.double() @ weight) - 9) + 0.03 * parity.sum(1)

    # A long run of an unbiased estimator; its own error is small beside the one that is tested.
    truth = PermutationShapley().run(ap.Game.from_function(function, n), budget=12_000, rng=rng()).values
    errors = []
    for budget in (3 * n, 8 * n):
        game = ap.Game.from_function(function, n, budget=budget)
        found = GaussianProcessShap().run(game, budget=budget, rng=rng(), sampler=InformativeSampler()).values
        errors.append(float((found - truth).square().sum() / truth.square().sum()))
    assert errors[1] < 0.5 * errors[0] < 0.1


def test_the_prior_of_gp_shap_stays_in_the_range_of_floats() -> None:
    at = signs(torch.rand(6, 500, generator=rng()) < 0.5)
    odd, even = covariance(torch.full((500,), 0.97, dtype=torch.float64), at, at)
    assert bool(torch.isfinite(odd).all()) and bool(torch.isfinite(even).all())


@pytest.mark.parametrize("n", [2, 7, 60])
def test_with_equal_strengths_only_sizes_matter(n: int) -> None:
    at = signs(torch.rand(9, n, generator=rng()) < 0.5)
    equal = torch.full((n,), 0.05, dtype=torch.float64)
    assert torch.allclose(equal_shapley_covariance(0.05, at), shapley_covariance(equal, at), atol=1e-14)


@pytest.mark.parametrize("n", [2, 8, 12])
def test_too_few_evaluations_for_exact_values_get_advice_that_works(n: int) -> None:
    with tiny_explainer() as explainer:
        words = " ".join("abcdefghijkl"[:n])
        with pytest.raises(ap.BudgetError) as raised:
            explainer.attribute(words, " x", method="shapley", budget=3)
        least = int(re.findall(r"Give budget=(\d+)", str(raised.value))[0])
        assert least == 2**n
        for method, budget in re.findall(r"method='(\w+)'.*?budget=(\d+)", str(raised.value)):
            explainer.attribute(words, " x", method=method, budget=int(budget))


@pytest.mark.parametrize(
    ("method", "valid", "invalid", "label"),
    [
        (Banzhaf(), BernoulliSampler(), LeverageSampler(), "regression coefficient (sampler 'leverage')"),
        (KernelShap(), KernelSampler(), BernoulliSampler(), "regression coefficient (sampler 'bernoulli')"),
        (KernelShap(), LeverageSampler(), InformativeSampler(), "regression coefficient (sampler 'informative')"),
        (Lime(), BernoulliSampler(), LeverageSampler(), "Lasso coefficient (sampler 'leverage')"),
    ],
)
def test_a_sampler_for_something_else_changes_the_name_of_the_values(
    method: ap.Method, valid: ap.Sampler, invalid: ap.Sampler, label: str
) -> None:
    game = ap.Game.from_function(games.random_moebius(8, 3), 8)
    found = method.run(game, budget=60, rng=rng(), sampler=valid)
    assert found.estimand is None
    assert found.notes == ()
    found = method.run(game, budget=60, rng=rng(), sampler=invalid)
    assert found.estimand == label
    assert f"does not draw for the {method.estimand}" in found.notes[0]
    if not isinstance(method, Lime):  # the values of all coalitions need no sampler
        assert method.run(game, budget=256, rng=rng(), sampler=invalid).estimand is None


def test_a_sampler_of_a_plugin_says_what_it_draws_for() -> None:
    class Own:
        def sample(self, n_features: int, budget: int, rng: torch.Generator) -> ap.Coalitions:
            return BernoulliSampler().sample(n_features, budget, rng)

    class Declared(Own):
        estimands = ("Banzhaf value",)

    game = ap.Game.from_function(games.random_moebius(8, 3), 8)
    assert Banzhaf().run(game, budget=60, rng=rng(), sampler=Own()).estimand == "regression coefficient (sampler 'Own')"
    assert Banzhaf().run(game, budget=60, rng=rng(), sampler=Declared()).estimand is None

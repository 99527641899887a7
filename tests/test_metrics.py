"""The built-in metrics against numbers computed by hand, and by brute force over all coalitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

import apportion as ap
from apportion.hooks.manager import load_plugins
from apportion.results.ranking import mean_ranks
from apportion.testing.games import KnownGame, random_moebius
from apportion.testing.randomness import generator
from apportion_plugins.metrics.ranking import Ranking

METRICS = load_plugins()["metrics"]
WEIGHTS = [4.0, 3.0, 2.0, 1.0]
ADDITIVE = KnownGame("additive", 4, {(i,): w for i, w in enumerate(WEIGHTS)} | {(): 7.0})


def measure(name: str, known: KnownGame, values: torch.Tensor, seed: int = 0, **options: object) -> ap.Measurement:
    game = ap.Game.from_function(known, known.n)
    return METRICS.get(name).make().measure(game, values, rng=generator(seed), **options)


def brute(known: KnownGame, present: set[int]) -> float:
    return float(known(torch.tensor([[i in present for i in range(known.n)]]))[0])


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        # Left without the 0, 1, … highest: 10 6 3 1 0; with them alone: 0 4 7 9 10.
        ("deletion", {}, (10 / 2 + 6 + 3 + 1) / 4),
        ("insertion", {}, (4 + 7 + 9 + 10 / 2) / 4),
        ("area_between", {}, 2.5),
        ("deletion", {"steps": 2}, (10 / 2 + 3) / 2),
        ("aopc", {}, (4 + 7 + 9 + 10) / 4),
        ("aopc", {"steps": 2}, (4 + 7) / 2),
        ("aopc", {"steps": 2, "order": "least"}, -(1 + 3) / 2),
        ("aopc", {"steps": 2, "order": "difference"}, (3 + 4) / 2),
        ("comprehensiveness", {}, (4 + 4 + 4 + 4 + 7) / 5),
        ("comprehensiveness", {"shares": [0.375, 1]}, (7 + 10) / 2),
        ("sufficiency", {}, (6 + 6 + 6 + 6 + 3) / 5),
        ("top_k_drop", {}, 4.0),
        ("top_k_drop", {"k": 3}, 9.0),
        ("top_k_drop", {"k": 9}, 10.0),
        ("lds", {}, 1.0),
        ("infidelity", {}, 0.0),
        ("sensitivity_n", {}, 1.0),
        ("sensitivity_n", {"n": 2}, 1.0),
        ("sensitivity_n", {"n": 4}, 0.0),
    ],
)
def test_an_additive_game_by_hand(name: str, options: dict[str, object], wanted: float) -> None:
    assert measure(name, ADDITIVE, torch.tensor(WEIGHTS), **options).value == pytest.approx(wanted, abs=1e-12)


def test_metrics_of_all_coalitions_agree_with_brute_force() -> None:
    """Five features have 32 coalitions, fewer than are drawn, so nothing is random."""
    known, n = random_moebius(5, 3, seed=4), 5
    values = torch.randn(n, generator=generator(9), dtype=torch.float64)
    phi, everyone = values.tolist(), set(range(n))
    sets = [set(s) for size in range(n + 1) for s in itertools.combinations(range(n), size)]
    scores, sums = [brute(known, s) for s in sets], [sum(phi[i] for i in s) for s in sets]
    lost = [brute(known, everyone) - brute(known, everyone - s) for s in sets]
    squares = [(total - loss) ** 2 for total, loss in zip(sums, lost, strict=True)]
    pairs = [(total, loss) for s, total, loss in zip(sets, sums, lost, strict=True) if len(s) == 2]
    for name, options, wanted in (
        ("lds", {}, spearmanr(scores, sums).statistic),
        ("infidelity", {}, sum(squares) / len(squares)),
        ("sensitivity_n", {"n": 2}, pearsonr(*zip(*pairs, strict=True)).statistic),
    ):
        found = measure(name, known, values, **options)
        assert found.value == pytest.approx(wanted, abs=1e-12), name
        assert found.std_error is None, name
    order = sorted(everyone, key=lambda i: -phi[i])
    left = [brute(known, set(order[k:])) for k in range(n + 1)]
    area = sum((a + b) / 2 for a, b in itertools.pairwise(left)) / n - left[-1]
    assert measure("deletion", known, values).value == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("name", METRICS.names())
def test_the_truth_beats_random_values(name: str) -> None:
    """On the mean over games with interactions."""
    metric = METRICS.get(name).make()
    right = wrong = 0.0
    for seed in range(8):
        known = random_moebius(8, 2, seed=seed)
        right += measure(name, known, known.shapley, seed).value
        noise = known.shapley[torch.randperm(8, generator=generator(seed))]
        wrong += measure(name, known, noise, seed).value
    assert (right > wrong) if metric.higher_is_better else (right < wrong)


@pytest.mark.parametrize("name", ["lds", "infidelity", "sensitivity_n"])
def test_standard_errors_are_of_the_right_size(name: str) -> None:
    """Reported errors match the spread over seeds, within a factor of two."""
    known = random_moebius(10, 2, seed=3)
    found = [measure(name, known, 0.7 * known.shapley + 0.3, seed) for seed in range(40)]
    spread = float(torch.tensor([m.value for m in found], dtype=torch.float64).std())
    said = sum(m.std_error for m in found) / len(found)
    assert 0.5 < said / spread < 2


@pytest.mark.parametrize("name", METRICS.names())
def test_a_score_that_never_changes_is_measured(name: str) -> None:
    """All correlations are 0 / 0 there, and all losses 0."""
    constant = KnownGame("constant", 6, {(): 3.3})
    found = measure(name, constant, torch.arange(6.0))
    nothing_to_lose = float((torch.arange(6.0).sum() / 2) ** 2)
    assert found.value == 0 or (name == "infidelity" and found.value > nothing_to_lose)
    assert "normalised" not in found.extras


def test_features_of_equal_value_are_removed_together() -> None:
    """Within a group of ties the score is interpolated, whichever feature is listed first."""
    known = random_moebius(5, 5, seed=6)
    game = ap.Game.from_function(known, 5)
    ranking = Ranking.of(torch.tensor([1.0, 2.0, 1.0 + 1e-12, 1.0, 0.0], dtype=torch.float64))
    assert ranking.edges.tolist() == [0, 1, 4, 5]
    without, only = ranking.scores(game, without=[0, 1, 2, 4, 5], only=[0, 3, 5])
    start, end = brute(known, {0, 2, 3, 4}), brute(known, {4})
    middle = start + (end - start) / 3
    wanted = [brute(known, set(range(5))), start, middle, end, brute(known, set())]
    assert without.tolist() == pytest.approx(wanted)
    between = brute(known, {1}) + (brute(known, {0, 1, 2, 3}) - brute(known, {1})) * 2 / 3
    assert only.tolist() == pytest.approx([brute(known, set()), between, brute(known, set(range(5)))])
    assert game.evaluations == 6


def test_equal_values_are_judged_like_a_straight_line() -> None:
    known = random_moebius(6, 3, seed=1)
    change = brute(known, set(range(6))) - brute(known, set())
    assert measure("deletion", known, torch.ones(6)).value == pytest.approx(change / 2)
    assert measure("area_between", known, torch.ones(6)).value == pytest.approx(0, abs=1e-12)


def test_mean_ranks() -> None:
    assert mean_ranks(np.array([5.0, 1.0, 5.0, 9.0, 1.0])).tolist() == [3.5, 1.5, 3.5, 5.0, 1.5]


def test_infidelity_says_what_the_best_scale_would_be() -> None:
    found = measure("infidelity", ADDITIVE, 4 * torch.tensor(WEIGHTS))
    assert found.value > 1
    assert found.extras["scale"] == pytest.approx(0.25)
    assert found.extras["scaled"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deletion", {"steps": 0}),
        ("aopc", {"steps": 1.5}),
        ("aopc", {"order": "worst"}),
        ("top_k_drop", {"k": 0}),
        ("top_k_drop", {"k": True}),
        ("comprehensiveness", {"shares": []}),
        ("sufficiency", {"shares": [0.2, 20]}),
        ("lds", {"masks": 3}),
        ("infidelity", {"draws": "many"}),
        ("sensitivity_n", {"n": 5}),
        ("sensitivity_n", {"n": float("nan")}),
        ("sensitivity_n", {"n": 1.5}),
    ],
)
def test_options_out_of_range_are_refused_before_the_model_runs(name: str, options: dict[str, object]) -> None:
    def never(mask: torch.Tensor) -> torch.Tensor:
        raise AssertionError("it asked")

    game = ap.Game.from_function(never, 4)
    (option,) = options
    with pytest.raises(ap.InputError, match=rf"{option}\b"):
        METRICS.get(name).make().measure(game, torch.zeros(4), rng=generator(), **options)


def test_curves_share_their_evaluations() -> None:
    known = random_moebius(10, 2)
    game = ap.Game.from_function(known, 10)
    for name, spent in (("deletion", 11), ("insertion", 20), ("area_between", 20), ("aopc", 20)):
        METRICS.get(name).make().measure(game, known.shapley, rng=generator())
        assert game.evaluations == spent, name

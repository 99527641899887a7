"""Interactions of pairs: exact ones against brute force, sampled ones against exact ones; their pictures."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

import apportion as ap
from apportion.testing import games, sample_results, tiny_explainer
from apportion_plugins.methods.interactions import Interactions
from apportion_plugins.visualizers.network import Network

FIRST = {"shapley": "Shapley value", "banzhaf": "Banzhaf value"}


def run(known, n: int, *, budget: int | None = None, seed: int = 0, index: str = "shapley", outputs: int = 1):
    game = ap.Game.from_function(known, n, n_outputs=outputs)
    found = Interactions().run(game, budget=budget, rng=torch.Generator().manual_seed(seed), index=index)
    return found, game.evaluations


def by_subsets(function, n: int, index: str) -> np.ndarray:
    """The definition, one coalition at a time."""
    found = np.zeros((n, n))
    for i, j in itertools.combinations(range(n), 2):
        others = [k for k in range(n) if k not in (i, j)]
        for size in range(n - 1):
            weight = math.factorial(size) * math.factorial(n - size - 2) / math.factorial(n - 1)
            for members in itertools.combinations(others, size):

                def v(*more, members=members):
                    mask = torch.zeros(1, n, dtype=torch.bool)
                    mask[0, [*members, *more]] = True
                    return float(function(mask)[0])

                share = weight if index == "shapley" else 0.5 ** (n - 2)
                found[i, j] += share * (v(i, j) - v(i) - v(j) + v())
    return found + found.T


def by_moebius(known: games.KnownGame, index: str) -> np.ndarray:
    """A set of size s gives each of its pairs 1/(s−1) of its coefficient (Shapley), or 2^(2−s) (Banzhaf)."""
    found = np.zeros((known.n, known.n))
    for members, coefficient in known.coefficients.items():
        for i, j in itertools.permutations(members, 2):
            size = len(members)
            found[i, j] += coefficient * (1 / (size - 1) if index == "shapley" else 2.0 ** (2 - size))
    return found


def error(known, truth: np.ndarray, budget: int, index: str, seeds: int = 8) -> float:
    """Root mean squared, relative to the truth."""
    misses = [run(known, known.n, budget=budget, seed=s, index=index)[0].extras["interactions"] for s in range(seeds)]
    return float(np.sqrt(np.mean((np.stack(misses) - truth) ** 2) / np.mean(truth**2)))


@pytest.mark.parametrize("index", FIRST)
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_exact_equals_the_definition(n: int, index: str) -> None:
    known = games.random_moebius(n, n, seed=n)
    found, evaluations = run(known, n, index=index)
    assert evaluations == 2**n and found.std_error is None
    assert found.estimand == FIRST[index]
    assert found.extras["interaction_index"] == f"{index.title()} interaction index"
    assert np.allclose(found.extras["interactions"], by_subsets(known, n, index), atol=1e-12)
    assert torch.allclose(found.values[:, 0], known.truth(FIRST[index]), atol=1e-12)
    assert found.extras["token_interactions"].shape == (0, n, n)


@pytest.mark.parametrize("index", FIRST)
@pytest.mark.parametrize("known", [g for g in games.known_games(8) if g.n > 1], ids=lambda g: g.name)
def test_known_games(known: games.KnownGame, index: str) -> None:
    found = run(known, known.n, index=index)[0].extras["interactions"]
    assert np.allclose(found, by_moebius(known, index), atol=1e-10)
    assert (np.diag(found) == 0).all() and (found == found.T).all()


@pytest.mark.parametrize("index", FIRST)
@pytest.mark.parametrize("n", [7, 13])
def test_sampled_is_exact_up_to_second_order(n: int, index: str) -> None:
    """As soon as the regression is determined; interactions also where features interact in threes."""
    for order in (1, 2, 3):
        known, budget = games.random_moebius(n, order), n * (n - 1) + 20
        found, evaluations = run(known, n, budget=budget, index=index)
        assert evaluations <= budget < 2**n
        assert np.allclose(found.extras["interactions"], by_moebius(known, index), atol=1e-9)
        if order < 3:
            assert torch.allclose(found.values[:, 0], known.truth(FIRST[index]), atol=1e-9)


@pytest.mark.parametrize("index", FIRST)
def test_sampled_converges_for_any_game(index: str) -> None:
    """Also where the quadratic fit is far from the game; all but one pair of coalitions is next to exact."""
    known = games.random_moebius(9, 9, seed=2)
    truth = by_moebius(known, index)
    errors = {budget: error(known, truth, budget, index) for budget in (92, 184, 368, 508)}
    print("\n".join(f"{index} {budget:4d} evaluations: relative error {e:.3g}" for budget, e in errors.items()))
    assert all(later < 0.7 * earlier for earlier, later in itertools.pairwise(errors.values()))
    assert errors[508] < 0.05


def test_every_token_gets_its_matrix() -> None:
    parts = [games.random_moebius(7, 5, seed=seed) for seed in (1, 2, 3)]
    for budget in (None, 90):
        together, _ = run(lambda mask: torch.stack([part(mask) for part in parts], 1), 7, budget=budget, outputs=3)
        kinds = ("interactions",) if budget is None else ("interactions", "interactions_std_error")
        for kind in kinds:
            alone = [run(part, 7, budget=budget)[0].extras[kind] for part in parts]
            assert np.allclose(together.extras[kind], alone[0])
            assert np.allclose(together.extras[f"token_{kind}"], alone[1:])


@pytest.mark.parametrize("index", FIRST)
def test_intervals_cover_the_truth(index: str) -> None:
    """Over 200 seeds, with as many evaluations as by default beyond 12 features."""
    known = games.random_moebius(8, 4, seed=4)
    truth, values, pairs = by_moebius(known, index), [], []
    off = ~np.eye(8, dtype=bool)
    for seed in range(200):
        found, _ = run(known, 8, budget=148, seed=seed, index=index)
        assert not found.notes
        miss = np.abs(found.extras["interactions"] - truth)
        pairs.append((miss <= 1.96 * found.extras["interactions_std_error"])[off].mean())
        inside = (found.values[:, 0] - known.truth(FIRST[index])).abs() <= 1.96 * found.std_error[:, 0]
        values.append(float(inside.double().mean()))
    assert 0.90 <= np.mean(values) <= 0.99
    assert 0.90 <= np.mean(pairs) <= 0.99


@pytest.mark.parametrize("index", FIRST)
def test_a_larger_budget_continues_the_same_draws_in_one_call(index: str) -> None:
    asked: list[set[tuple[bool, ...]]] = []

    def known(mask: torch.Tensor) -> torch.Tensor:
        asked.append({tuple(row) for row in mask.tolist()})
        return mask.sum(1).double()

    for budget in (84, 101, 150, 254):
        run(known, 8, budget=budget, seed=3, index=index)
    assert len(asked) == 4
    assert all(small < large for small, large in itertools.pairwise(asked))


def test_values_add_up() -> None:
    known = games.random_moebius(9, 5)
    found, _ = run(known, 9, budget=150)
    ends = known(torch.tensor([[False] * 9, [True] * 9]))
    assert math.isclose(float(found.values.sum()), float(ends[1] - ends[0]), abs_tol=1e-9)


def test_bad_options_and_budgets_are_refused_before_anything_is_asked() -> None:
    game = ap.Game.from_function(lambda mask: mask.sum(1).double(), 10)
    large = ap.Game.from_function(lambda mask: mask.sum(1).double(), 200)
    draw = torch.Generator()
    with pytest.raises(ap.UnknownNameError, match="No interaction index is called 'shaply'. Did you mean 'shapley'"):
        Interactions().run(game, budget=None, rng=draw, index="shaply")
    with pytest.raises(ap.BudgetError, match=r"10 features take at least 92 evaluations, and the budget is 91.*224"):
        Interactions().run(game, budget=91, rng=draw)
    with pytest.raises(ap.InputError, match="200 features have 19,900 pairs; the limit .* is 128"):
        Interactions().run(large, budget=None, rng=draw)
    assert game.evaluations == large.evaluations == 0
    with pytest.raises(ap.BudgetError, match=r"this seed and a budget of 58 determine only \d\d of 29 coefficients"):
        for seed in range(40):
            run(lambda mask: mask.sum(1).double(), 8, budget=58, seed=seed)


def test_few_evaluations_are_noted() -> None:
    found, _ = run(games.random_moebius(9, 4), 9, budget=100)
    assert "standard errors of interactions are too small with fewer than 148 evaluations" in found.notes[0]


def test_results_survive_files(tmp_path: Path) -> None:
    with tiny_explainer() as explainer:
        result = explainer.attribute("one two three", " four five", method="interactions")
    again = ap.Attribution.load(result.save(tmp_path / "result.json"))
    for name in ("interactions", "token_interactions"):
        assert np.array_equal(np.array(again.extras[name]), result.extras[name])
    assert result.efficiency_gap == pytest.approx(0, abs=1e-9)
    # Log-probabilities add up over tokens, and so do interactions.
    assert np.allclose(result.extras["token_interactions"].sum(0), result.extras["interactions"])


# --- pictures


def texts_of(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


@pytest.mark.parametrize("kind", ["matrix", "network"])
def test_pictures_say_what_is_missing(kind: str) -> None:
    result = sample_results()["exact"]
    with pytest.raises(ap.ResultError, match=r"has no interactions. .*method=\"interactions\""):
        replace(result, extras={}).plot(kind)
    for wrong in (2, -1, True, "golf"):
        with pytest.raises(ap.InputError, match=r"must be the position of a target token.*0 ' golf', 1 ','"):
            result.plot(kind, token=wrong)
    option = "max_features" if kind == "matrix" else "edges"
    with pytest.raises(ap.InputError, match=f"{option}=0"):
        result.plot(kind, **{option: 0})


@pytest.mark.parametrize("kind", ["matrix", "network"])
@pytest.mark.parametrize("name", sample_results())
def test_pictures_stay_on_the_page(kind: str, name: str) -> None:
    figure = sample_results()[name].plot(kind)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01


def test_the_matrix_shows_pairs_and_one_token() -> None:
    result = sample_results()["sampled"]
    texts = texts_of(result.plot("matrix"))
    assert "Shapley interaction index" in texts and "Dave" in texts
    one = texts_of(result.plot("matrix", token=1))
    assert any("Token 1, “and”" in text for text in one) and texts != one
    few = texts_of(result.plot("matrix", max_features=3))
    assert any("Showing the 3 of 8 features with the largest Σ|interaction|" in text for text in few)
    assert any("of 28 pairs exclude 0" in text for text in texts)


def test_the_network_draws_the_strongest() -> None:
    result = sample_results()["sampled"]
    strongest = np.abs(np.triu(result.extras["interactions"])).max()

    def curves(**options: object) -> list[float]:
        found = Network().render(result, **options).axes[0].findobj(matplotlib.patches.PathPatch)
        return [patch.get_linewidth() for patch in found]

    assert len(curves()) == 12 and len(curves(edges=3)) == 3 and len(curves(edges=None)) == 28
    assert curves(edges=1) == [max(curves())]
    assert strongest > 0
    texts = texts_of(Network().render(result, edges=3))
    assert any("Showing the 3 of 28 pairs with the largest |interaction|" in text for text in texts)

"""Drill-down: trees, Owen values against two independent definitions, and budgets spent where the score is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.testing import games
from apportion.testing.games import KnownGame
from apportion_plugins.methods.hierarchical import Hierarchical
from apportion_plugins.methods.tree import Node, build_tree

LEVELS = (
    ap.Level("paragraphs", (0, 0, 0, 0, 1, 1, 1), ("P0", "P1")),
    ap.Level("sentences", (0, 0, 1, 1, 2, 2, 2), ("S0", "S1", "S2")),
)


def game_of(known: KnownGame, levels: tuple[ap.Level, ...] = LEVELS, budget: int | None = None) -> ap.Game:
    game = ap.Game.from_function(known, known.n, budget=budget)
    game.levels = levels
    return game


def drill(known: KnownGame, budget: int | None = None, seed: int = 0, **options: object) -> ap.Estimate:
    game = game_of(known, options.pop("levels", LEVELS), budget)  # type: ignore[arg-type]
    return Hierarchical().run(game, budget=budget, rng=torch.Generator().manual_seed(seed), **options)


def leaves(node: Node) -> list[Node]:
    return [leaf for child in node.children for leaf in leaves(child)] or [node]


def owen_by_dividends(known: KnownGame, root: Node) -> torch.Tensor:
    """A set's dividend is shared equally among the groups that hold some of it, and within each of them again."""
    values = torch.zeros(known.n, dtype=torch.float64)
    for members, coefficient in known.coefficients.items():
        share(root, set(members), coefficient, values)
    return values


def share(node: Node, members: set[int], amount: float, values: torch.Tensor) -> None:
    inside = [child for child in node.children if members & set(child.members)]
    if not node.children:
        values[node.members[0]] += amount
    for child in inside:
        share(child, members & set(child.members), amount / len(inside), values)


def owen_by_orders(known: KnownGame, root: Node) -> torch.Tensor:
    """The mean marginal contribution over all orders in which groups stay together."""

    def orders(node: Node) -> list[list[int]]:
        if not node.children:
            return [list(node.members)]
        parts = [orders(child) for child in node.children]
        return [
            list(itertools.chain(*chosen))
            for some in itertools.permutations(parts)
            for chosen in itertools.product(*some)
        ]

    total, found = torch.zeros(known.n, dtype=torch.float64), orders(root)
    for order in found:
        mask = torch.zeros(known.n + 1, known.n, dtype=torch.bool)
        for step, i in enumerate(order):
            mask[step + 1 :, i] = True
        values = known(mask)
        total[order] += values[1:] - values[:-1]
    return total / len(found)


@pytest.mark.parametrize("order", [1, 2, 3, 7])
def test_exact_owen_values_are_those_of_both_definitions(order: int) -> None:
    known = games.random_moebius(7, order)
    root = build_tree([str(i) for i in range(7)], LEVELS, 8)
    estimate = drill(known, budget=128, scores="owen")
    assert (estimate.estimand, estimate.std_error) == ("Owen value", None)
    assert torch.allclose(estimate.values[:, 0], owen_by_dividends(known, root), atol=1e-9)
    assert torch.allclose(estimate.values[:, 0], owen_by_orders(known, root), atol=1e-9)


def test_without_groups_owen_values_are_shapley_values() -> None:
    known = games.random_moebius(6, 6)
    estimate = drill(known, budget=64, scores="owen", levels=())
    assert torch.allclose(estimate.values[:, 0], known.shapley, atol=1e-9)


def test_sampled_owen_values_converge_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apportion_plugins.methods.hierarchical.exact_coalitions", lambda root: 10**9)
    known = games.random_moebius(14, 3, seed=2)
    levels = (
        ap.Level("halves", (0,) * 7 + (1,) * 7, ("a", "b")),
        ap.Level("quarters", (0,) * 3 + (1,) * 4 + (2,) * 3 + (3,) * 4, tuple("cdef")),
    )
    truth = owen_by_dividends(known, build_tree([str(i) for i in range(14)], levels, 8))
    ends = known(torch.tensor([[False] * 14, [True] * 14]))
    counts, errors = [4, 16, 64, 256], []
    for orders in counts:
        found = [drill(known, 2**14 - 1, seed, scores="owen", levels=levels, orders=orders) for seed in range(12)]
        assert all(one.std_error is not None for one in found)
        assert all(float(one.values[:, 0].sum()) == pytest.approx(float(ends[1] - ends[0])) for one in found)
        errors.append(float(torch.stack([(one.values[:, 0] - truth).norm() for one in found]).mean()))
    assert np.polyfit(np.log(counts), np.log(errors), 1)[0] < -0.4


def test_intervals_of_sampled_owen_values_hold_the_truth() -> None:
    known = games.random_moebius(12, 4, seed=5)
    levels = (ap.Level("parts", (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2), tuple("abc")),)
    truth = owen_by_dividends(known, build_tree([str(i) for i in range(12)], levels, 8))
    held = []
    for seed in range(200):
        one = drill(known, 130, seed, scores="owen", levels=levels)
        assert one.std_error is not None
        held.append((one.values[:, 0] - truth).abs() <= 1.96 * one.std_error[:, 0])
    assert 0.9 <= float(torch.stack(held).double().mean()) <= 0.99


def test_the_budget_goes_where_the_score_is() -> None:
    """One word of 64 matters: a look at its paragraph, its sentence, its words, and at no other."""
    known = KnownGame("needle", 64, {(37,): 5.0})
    levels = (
        ap.Level("paragraphs", tuple(i // 16 for i in range(64)), tuple("abcd")),
        ap.Level("sentences", tuple(i // 4 for i in range(64)), tuple(map(str, range(16)))),
    )
    game = game_of(known, levels)
    estimate = Hierarchical().run(game, budget=13, rng=torch.Generator())
    assert game.evaluations == 1 + 4 + 4 + 4
    assert estimate.values[37, 0] == 5
    assert int(estimate.values[:, 0].count_nonzero()) == 1
    tree = estimate.extras["tree"]
    assert [row["level"] for row in tree] == ["paragraphs"] * 2 + ["paragraphs", "sentences", "sentences"] + [
        ""
    ] * 4 + ["sentences"] * 2 + ["paragraphs"]
    path = [row for row in tree if 37 in row["members"]]
    assert [row["value"] for row in path] == [5, 5, 5]
    assert tree[path[2]["parent"]] is path[1]
    assert estimate.notes == (
        "60 features share the scores of groups that were not expanded, so their own values are unknown; "
        "expanding one of these groups takes at least 4 further coalitions",
    )
    assert estimate.std_error is not None
    known_errors = [i for i in range(64) if not estimate.std_error[i, 0].isnan()]
    assert known_errors == [36, 37, 38, 39] and not estimate.std_error[known_errors].any()


@pytest.mark.parametrize("scores", ["ablation", "owen"])
@pytest.mark.parametrize("budget", [20, 60, 128])
def test_values_that_were_not_computed_have_no_error(scores: str, budget: int) -> None:
    """Whether a feature's error is known says exactly whether it has a score of its own."""
    estimate = drill(games.random_moebius(12, 4), budget, scores=scores, levels=(), branching=3)
    own = {row["members"][0] for row in estimate.extras["tree"] if len(row["members"]) == 1}
    errors = torch.zeros(12, 1) if estimate.std_error is None else estimate.std_error
    assert {i for i in range(12) if not errors[i].isnan().any()} == own
    assert (estimate.replicates is None) or len(own) == 12
    assert all(row["std_error"] is None or math.isfinite(row["std_error"]) for row in estimate.extras["tree"])


@pytest.mark.parametrize("scores", ["ablation", "owen"])
def test_no_room_is_left_that_a_group_would_fit(scores: str) -> None:
    for n, budget, least in ((8, 16, 12), (25, 50, 44), (8, 44, 44)):
        game = game_of(games.random_moebius(n, 3), (), budget)
        rng = torch.Generator().manual_seed(0)
        estimate = Hierarchical().run(game, budget=budget, rng=rng, scores=scores, branching=2)
        full = len(estimate.extras["tree"]) == 2 * n - 2
        assert game.evaluations >= least or full
        if not full:
            more = int(estimate.notes[0].split("takes at least ")[1].split()[0])
            assert game.evaluations + more > budget
            wider = game_of(games.random_moebius(n, 3), (), game.evaluations + more)
            rng = torch.Generator().manual_seed(0)
            Hierarchical().run(wider, budget=game.evaluations + more, rng=rng, scores=scores, branching=2)
            assert wider.evaluations > game.evaluations


def test_too_small_a_budget_gets_advice_that_works() -> None:
    known = games.random_moebius(8, 2)
    with pytest.raises(ap.BudgetError) as raised:
        drill(known, 5, levels=())
    assert str(raised.value).endswith("Give budget=9 or more, or branching=2, whose first step takes 3.")
    assert drill(known, 9, levels=()).std_error is None
    drill(known, 5, levels=(), branching=2)
    with pytest.raises(ap.BudgetError, match="scores='ablation', whose first step takes 9") as raised:
        drill(known, 10, levels=(), scores="owen")
    drill(known, 10, levels=())
    least = int(str(raised.value).split("Give budget=")[1].split()[0])
    drill(known, least, levels=(), scores="owen")
    with pytest.raises(ap.BudgetError, match=r"budget is 2\. Give budget=9 or more\.$"):
        drill(known, 2, levels=())


def test_the_ranking_is_unknown_where_values_are(explainer: ap.Explainer) -> None:
    for scores in ("ablation", "owen"):
        words = "a b c d e f g h i j k l"
        result = explainer.attribute(words, " xy", method="hierarchical", budget=9, scores=scores, branching=2)
        assert result.std_error is not None and result.token_std_error is not None
        shared = np.isnan(result.std_error)
        assert shared.any()
        assert (np.isnan(result.token_std_error) == shared).all()
        assert result.ranking_stable is None and result.top_agreement is None
        assert result.to_dataframe()["std_error"].isna().sum() == shared.sum()
        assert not result.to_dataframe("groups")["std_error"].isna().any()
        figure = result.plot("bar")
        assert any("unknown" in text.get_text() for text in figure.findobj(match=lambda one: hasattr(one, "get_text")))


@pytest.mark.parametrize("scores", ["ablation", "owen"])
def test_a_larger_budget_asks_the_same_and_more(scores: str) -> None:
    known = games.random_moebius(30, 2)
    asked: list[set[tuple[bool, ...]]] = []
    for budget in (60, 90, 160, 300):
        seen: set[tuple[bool, ...]] = set()

        def function(mask: torch.Tensor, seen: set[tuple[bool, ...]] = seen) -> torch.Tensor:
            seen |= set(map(tuple, mask.tolist()))
            return known(mask)

        game = ap.Game.from_function(function, 30, budget=budget)
        Hierarchical().run(game, budget=budget, rng=torch.Generator().manual_seed(1), scores=scores)
        asked.append(seen)
    assert all(less <= more for less, more in itertools.pairwise(asked))


def test_many_parts_are_taken_together() -> None:
    root = build_tree([f"w{i}" for i in range(100)], (), 8)
    assert [len(child.members) for child in root.children] == [12, 13, 12, 13, 12, 13, 12, 13]
    assert root.children[0].text == "w0 … w11"
    assert [leaf.members for leaf in leaves(root)] == [(i,) for i in range(100)]
    assert max(len(node.children) for node in walk(root)) <= 8
    assert all(len(node.children) != 1 for node in walk(root))
    assert math.prod(len(node.children) for node in walk(build_tree(["a"], (), 8))) == 0
    for n in range(2, 40):
        halves = build_tree([f"w{i}" for i in range(n)], (), 2)
        assert all(len(node.children) in (0, 2) for node in walk(halves))


def walk(node: Node) -> list[Node]:
    return [node, *(found for child in node.children for found in walk(child))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": "shapley"}, "scores='shapley' must be 'ablation' or 'owen'"),
        ({"branching": 1}, "branching=1 must be"),
        ({"orders": 5}, "orders=5 must be even"),
        ({"orders": 2}, "orders=2 must be"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        drill(games.random_moebius(7, 2), 50, **options)


def test_on_a_model_the_result_keeps_its_tree(explainer: ap.Explainer, tmp_path: object) -> None:
    text = ap.Text("One two three. Four five six.\n\nSeven eight nine. Ten eleven twelve.")
    result = explainer.attribute(text, " x", method="hierarchical", scores="owen", budget=80)
    assert result.efficiency_gap == pytest.approx(0, abs=1e-9)
    more = explainer.refine(result, budget=200)
    assert len(more.extras["tree"]) >= len(result.extras["tree"])
    again = ap.Attribution.load(more.save(tmp_path / "tree.json"))  # type: ignore[operator]
    assert again.extras["tree"] == more.extras["tree"]

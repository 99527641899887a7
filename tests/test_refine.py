"""Runs that go on: `refine` from a result, `until` from step to step, and nothing is scored twice."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.game.stopping import run_until
from apportion.protocols.methods import Estimate
from apportion.testing import games, tiny
from apportion_plugins.methods.kernel_shap import KernelShap
from apportion_plugins.samplers.leverage import LeverageSampler

WORDS = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize(
    ("method", "sampler"),
    [("kernel_shap", None), ("kernel_shap", "kernel"), ("permutation", None), ("banzhaf", None), ("lime", None)],
)
def test_a_run_that_goes_on_gives_what_one_run_gives_and_scores_only_what_is_new(
    explainer: ap.Explainer, method: str, sampler: str | None
) -> None:
    options = {"sampler": sampler} if sampler else {}
    first = explainer.attribute(WORDS, " x", method=method, budget=100, seed=3, **options)
    events: list[ap.ProgressEvent] = []
    with ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[_Watch(events)]) as fresh:
        again = fresh.attribute(WORDS, " x", method=method, budget=100, seed=3, **options)
        events.clear()
        more = fresh.refine(again, budget=200)
    at_once = explainer.attribute(WORDS, " x", method=method, budget=200, seed=3, **options)
    new = more.provenance.evaluations - first.provenance.evaluations
    assert [event.total for event in events if event.stage == "score" and not event.done] == [new]
    assert more.provenance.evaluations == at_once.provenance.evaluations
    np.testing.assert_allclose(more.values, at_once.values, atol=1e-9)
    np.testing.assert_allclose(more.std_error, at_once.std_error, atol=1e-9)
    if (method, sampler) == ("kernel_shap", None):
        assert (first.provenance.evaluations, new) == (100, 100)
    assert more.provenance.budget == 200


class _Watch:
    def __init__(self, events: list[ap.ProgressEvent]) -> None:
        self.events = events

    @ap.hookimpl
    def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
        self.events.append(event)


class Anew:
    """A method whose draws depend on its budget, so that nothing of a smaller run serves a larger one."""

    estimand = "something"
    requires: frozenset[ap.Capability] = frozenset()

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        rng.manual_seed(budget or 0)
        mask = torch.rand(budget or 0, game.n_features, generator=rng) < 0.5
        values = game.values(mask).std(0).expand(game.n_features, -1)
        return Estimate(values, values / len(mask) ** 0.5)


def test_methods_that_draw_anew_can_be_refined_too(explainer: ap.Explainer) -> None:
    first = explainer.attribute(WORDS, " x", method=Anew(), budget=40)
    spent = first.provenance.evaluations
    # What is left of 60 is less than the first run had, so that run is the better estimate.
    same = explainer.refine(first, budget=60)
    assert np.array_equal(same.values, first.values)
    assert "The larger budget changed nothing: no evaluation was added." in same.provenance.notes
    more = explainer.refine(first, budget=100)
    assert spent < more.provenance.evaluations <= 100
    assert any("earlier evaluations that no longer serve" in note for note in more.provenance.notes)


def test_refining_chooses_anew_where_auto_chose(explainer: ap.Explainer) -> None:
    first = explainer.attribute("a b c d e f", " x", budget=20)
    assert first.provenance.method == "gp_shap"
    exact = explainer.refine(first, budget=64)
    assert (exact.provenance.method, exact.provenance.evaluations, exact.std_error) == ("shapley", 64, None)


def test_what_cannot_be_refined_is_refused(explainer: ap.Explainer, tmp_path: Any) -> None:
    result = explainer.attribute(WORDS, " x", method="kernel_shap", budget=50)
    for options, message in (
        ({}, "Give budget="),
        ({"budget": 50}, "must be larger than the 50 evaluations that this result took"),
        ({"budget": 0}, "whole number of at least 1"),
        ({"until": -1}, "until=-1 must be a standard error"),
        ({"until": float("nan")}, "until=nan"),
    ):
        with pytest.raises(ap.InputError, match=message):
            explainer.refine(result, **options)
    with pytest.raises(ap.InputError, match="not dict"):
        explainer.refine({}, budget=60)  # type: ignore[arg-type]


class Careless:
    """A method that samples and forgets its standard errors."""

    estimand = "something"
    requires: frozenset[ap.Capability] = frozenset()

    def __init__(self, *, numpy: bool) -> None:
        self.numpy = numpy

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        shape = (budget or 8, game.n_features)
        if self.numpy:
            mask = torch.from_numpy(np.random.default_rng(rng.initial_seed()).random(shape)) < 0.5
        else:
            mask = torch.rand(shape, generator=rng) < 0.5
        return Estimate(game.values(mask).mean(0).expand(game.n_features, -1).clone())


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("until", [None, 0.1])
def test_sampled_values_without_errors_are_not_called_exact(
    explainer: ap.Explainer, tmp_path: Any, numpy: bool, until: float | None
) -> None:
    result = explainer.attribute(WORDS, " x", method=Careless(numpy=numpy), budget=40, until=until)
    assert result.provenance.evaluations <= 40
    for found in (result, ap.Attribution.load(result.save(tmp_path / "r.json"))):
        assert found.ranking_stable is None
        assert found.top_agreement is None
        assert found.to_dataframe()["std_error"].isna().all()
        assert found.to_dataframe(per_token=True)["std_error"].isna().all()
        assert "The standard errors are unknown." in found.plot("html")
    assert any("'Careless' draws at random, but returns no standard errors" in n for n in result.provenance.notes)


def test_an_exact_result_has_nothing_to_refine(explainer: ap.Explainer) -> None:
    for method, words in (("shapley", "a b c"), ("ablation", WORDS), ("auto", "a b c"), ("kernel_shap", "a b c")):
        exact = explainer.attribute(words, " x", method=method)
        for more in ({"budget": 5000}, {"until": 0.1}):
            with pytest.raises(ap.InputError, match="This result is exact, so there is nothing to refine"):
                explainer.refine(exact, **more)
    coarse = explainer.attribute(WORDS, " x", method="hierarchical", budget=9)
    finer = explainer.refine(coarse, budget=30)
    assert coarse.provenance.evaluations < finer.provenance.evaluations
    with pytest.raises(ap.InputError, match="nothing to refine"):
        explainer.refine(finer, budget=60)


def test_a_larger_budget_that_adds_nothing_says_so(explainer: ap.Explainer) -> None:
    coarse = explainer.attribute(WORDS, " x", method="hierarchical", budget=4)
    same = explainer.refine(coarse, budget=5)
    assert same.provenance.evaluations == coarse.provenance.evaluations
    assert "The larger budget changed nothing: no evaluation was added." in same.provenance.notes


def test_a_run_whose_evaluations_are_not_kept_is_not_continued(explainer: ap.Explainer) -> None:
    result = explainer.attribute("a b c d", " x", method="reagent", num_probes=2, max_probe_steps=2, budget=20)
    with pytest.raises(ap.InputError, match="A run of the method 'reagent' cannot be continued"):
        explainer.refine(result, budget=100)


def test_what_was_scored_is_forgotten_with_the_result() -> None:
    class Watching:
        """Knows how to reach what a run keeps, without keeping it."""

        @ap.hookimpl
        def apportion_before_run(self, request: ap.Request) -> None:
            self.renderer = weakref.ref(request.renderer)

    watching = Watching()
    with ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[watching]) as explainer:
        result = explainer.attribute("a b c", " x")
        gc.collect()
        assert watching.renderer() is not None
        del result
        gc.collect()
        assert watching.renderer() is None


def test_until_ends_when_the_errors_are_small_enough(explainer: ap.Explainer) -> None:
    whole = explainer.attribute(WORDS, " x", method="kernel_shap", budget=600)
    assert whole.std_error is not None
    wanted = float(whole.std_error.max()) * 2
    result = explainer.attribute(WORDS, " x", method="kernel_shap", until=wanted)
    assert result.std_error is not None
    assert result.std_error.max() <= wanted
    assert result.provenance.evaluations < 600
    assert any("every standard error is at most" in note for note in result.provenance.notes)
    # The same as one run with the budget of the last step.
    asked = result.provenance.evaluations
    at_once = explainer.attribute(WORDS, " x", method="kernel_shap", budget=asked)
    np.testing.assert_allclose(result.values, at_once.values, atol=1e-9)


def test_until_ends_with_the_budget_and_says_so(explainer: ap.Explainer) -> None:
    result = explainer.attribute(WORDS, " x", method="kernel_shap", until=1e-12, budget=100)
    assert result.provenance.evaluations == 100
    assert (result.provenance.until, result.provenance.budget) == (1e-12, 100)
    assert any(note.startswith("The budget was spent before") for note in result.provenance.notes)
    exact = explainer.attribute("a b c", " x", until=1e-12)
    assert exact.provenance.evaluations == 8
    more = explainer.refine(result, until=1e-12, budget=2048)
    assert (more.provenance.evaluations, more.std_error) == (1024, None)


def test_max_std_error_is_an_alias_of_until(explainer: ap.Explainer) -> None:
    options = {"method": "kernel_shap", "budget": 100}
    until = explainer.attribute(WORDS, " x", until=1.0, **options)
    alias = explainer.attribute(WORDS, " x", max_std_error=1.0, **options)
    (many,) = explainer.attribute_many([WORDS], target=" x", max_std_error=1.0, **options)
    refined = explainer.refine(alias, max_std_error=1e-12, budget=200)
    for result in (alias, many):
        np.testing.assert_array_equal(result.values, until.values)
        assert (result.provenance.until, result.provenance.evaluations) == (1.0, until.provenance.evaluations)
    assert (refined.provenance.until, refined.provenance.evaluations) == (1e-12, 200)
    assert explainer.estimate(WORDS, " x", max_std_error=1.0, **options).at_most


def test_only_one_name_of_the_limit_is_accepted(explainer: ap.Explainer) -> None:
    result = explainer.attribute(WORDS, " x", method="kernel_shap", budget=50)
    both = {"until": 0.1, "max_std_error": 0.1}
    for call in (
        lambda: explainer.attribute(WORDS, " x", **both),
        lambda: explainer.estimate(WORDS, " x", **both),
        lambda: explainer.refine(result, **both),
        lambda: list(explainer.attribute_many([WORDS], target=" x", **both)),
    ):
        with pytest.raises(ap.InputError, match="max_std_error= is an alias of until=; give only one of them"):
            call()
    with pytest.raises(ap.InputError, match="max_std_error=-1 must be a standard error"):
        explainer.refine(result, max_std_error=-1)


def test_the_steps_of_until() -> None:
    """Never more than half as much again, and a method that refuses a small budget gets a larger one."""
    known, budgets = games.random_moebius(12, 4), []

    def run(budget: int) -> Estimate:
        budgets.append(budget)
        if budget < 100:
            raise ap.BudgetError("too small")
        rng = torch.Generator().manual_seed(0)
        return KernelShap().run(game, budget=budget, rng=rng, sampler=LeverageSampler())

    game = ap.Game.from_function(known, 12, budget=1000)
    run_until(run, game, 1000, 1e-9)
    assert budgets[:2] == [48, 96]
    assert budgets[-1] == 1000
    assert all(b <= 1.5 * a + 2 for a, b in itertools.pairwise(budgets[2:]))
    assert game.evaluations == 1000


def test_counts_do_not_depend_on_what_else_was_asked(explainer: ap.Explainer) -> None:
    """A result counts what it took, also where another run or a metric had scored some of it."""
    rough = explainer.attribute(WORDS, " x", method="kernel_shap", budget=30)
    explainer.evaluate(rough)
    found = [explainer.refine(rough, budget=budget).provenance.evaluations for budget in (60, 40, 50, 60, 100)]
    assert found == [60, 40, 50, 60, 100]


def test_until_without_errors_changes_nothing_and_says_so(explainer: ap.Explainer) -> None:
    for method, budget in (("ablation", 200), ("hierarchical", 200)):
        plain = explainer.attribute(WORDS, " x", method=method, budget=budget)
        until = explainer.attribute(WORDS, " x", method=method, budget=budget, until=0.1)
        np.testing.assert_array_equal(plain.values, until.values)
        assert plain.provenance.evaluations == until.provenance.evaluations
        assert "until=0.1 had no effect: the values are exact." in until.provenance.notes

"""``method="auto"``: it keeps to its budget, and says what it estimates."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import apportion as ap
from apportion.hooks.manager import installed_plugins
from apportion.runs.auto import DEFAULT_BUDGET, Choice, choose_method
from apportion.runs.resolver import with_sampler
from apportion.testing.explainers import tiny_explainer

WORDS = " ".join("abcdefghijkl")


@pytest.mark.parametrize(
    ("n", "budget", "method"),
    [(1, None, "shapley"), (10, None, "shapley"), (11, None, "gp_shap"), (5, 32, "shapley"), (5, 31, "gp_shap"),
     (5, 12, "gp_shap"), (12, 25, "hierarchical"), (30, 89, "hierarchical"), (30, 90, "gp_shap"),
     (30, 8192, "gp_shap"), (30, 8193, "kernel_shap"),
     (300, None, "gp_shap"), (400, None, "hierarchical"), (500, 1500, "gp_shap"), (600, None, "hierarchical"),
     (600, 2400, "kernel_shap"), (5000, None, "hierarchical")],
)  # fmt: skip
def test_it_takes_the_estimator_with_the_least_error(n: int, budget: int | None, method: str) -> None:
    choice = choose_method(n, budget)
    assert choice.method == method
    assert choice.budget == (DEFAULT_BUDGET if budget is None else budget)
    named = f"default budget of {DEFAULT_BUDGET:,}" if budget is None else f"the budget of {budget:,}"
    assert choice.reason.count("Shapley") <= 1 and "Owen" not in choice.reason  # the note has the rest
    assert named in choice.reason and f"2^{n}" in choice.reason


SIZES = st.one_of(st.integers(1, 20), st.integers(1, 5000))
BUDGETS = st.one_of(st.none(), st.integers(1, 40), st.integers(1, 30_000))


@settings(max_examples=300, deadline=None)
@given(n=SIZES, budget=BUDGETS, draws=st.sampled_from([1, 1, 2, 16]))
def test_what_it_refuses_names_the_least_budget_that_it_takes(n: int, budget: int | None, draws: int) -> None:
    try:
        choice = choose_method(n, budget, draws)
    except ap.BudgetError as error:
        (least,) = {int(found) for found in re.findall(r"Give budget=(\d+)", str(error))}
        assert least > (DEFAULT_BUDGET if budget is None else budget)
        choice = choose_method(n, least, draws)
        with pytest.raises(ap.BudgetError):
            choose_method(n, least - 1, draws)
    assert bool(choice.notes) == (choice.method == "hierarchical")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 10, 24, 60, 501, 5000])
@pytest.mark.parametrize("budget", [1, 2, 4, 8, 12, 16, 17, 72, 180, None])
def test_runs_keep_the_budget_and_estimate_what_was_promised(n: int, budget: int | None) -> None:
    try:
        choice = choose_method(n, budget)
    except ap.BudgetError:
        assert budget is not None and budget < 16
        return
    game, estimate = _run(choice, n)
    if choice.method == "hierarchical":
        # The first step fits even the least budget; halves and quarters leave little of a larger one unspent.
        assert game.evaluations >= min(0.5 * choice.budget, 2 * n)
    assert 1 <= game.evaluations <= (DEFAULT_BUDGET if budget is None else budget)
    assert estimate.estimand in (None, "Owen value")
    assert (estimate.estimand == "Owen value") == bool(choice.notes)
    ends = game.values(torch.tensor([[False] * n, [True] * n]))
    assert torch.allclose(estimate.values.sum(0), ends[1] - ends[0])
    if choice.method == "gp_shap":
        assert estimate.std_error is not None and bool(torch.isfinite(estimate.std_error).all())


def _run(choice: Choice, n: int) -> tuple[ap.Game, ap.Estimate]:
    """Run what was chosen on a game that no method finds easy, with words in sentences if there are many."""
    weight = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)

    def function(mask: torch.Tensor) -> torch.Tensor:
        total = mask.double() @ weight
        return total.tanh() + 0.1 * total + 0.01 * (mask.double() @ torch.arange(n).double().sqrt()).sin()

    game = ap.Game.from_function(function, n, budget=choice.budget)
    if n > 100:
        names = tuple(f"sentence {i}" for i in range(-(-n // 12)))
        game.levels = (ap.Level("sentences", tuple(i // 12 for i in range(n)), names),)
    plugins = installed_plugins()
    method = plugins["methods"].get(choice.method).make()
    options = with_sampler(method.run, choice.options, plugins["samplers"])
    return game, method.run(game, budget=choice.budget, rng=torch.Generator().manual_seed(0), **options)


def test_a_result_says_loudly_that_it_drilled_down() -> None:
    with tiny_explainer() as explainer:
        result = explainer.attribute(WORDS, " x", budget=20)
        provenance = result.provenance
        assert (provenance.method, result.estimand) == ("hierarchical", "Owen value")
        assert provenance.notes[0].startswith("These are Owen values, not Shapley values")
        assert "Sampled Shapley values of all 12 features take budget=26 or more" in provenance.notes[0]
        assert provenance.evaluations <= 20
        assert provenance.options["scores"] == "owen" and "tree" in result.extras
        spent = provenance.evaluations
        still = explainer.refine(result, budget=25 + spent)
        assert (still.provenance.method, still.estimand) == ("hierarchical", "Owen value")
        assert f"take budget={26 + spent} or more" in still.provenance.notes[0]
        enough = explainer.refine(result, budget=26 + spent)
        assert (enough.provenance.method, enough.estimand) == ("gp_shap", "Shapley value")
        assert enough.provenance.evaluations <= 26 + spent
        assert any("The result before had Owen values of groups" in note for note in enough.provenance.notes)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 14), first=st.integers(2, 60), more=st.integers(1, 60), again=st.integers(1, 60))
def test_refining_never_takes_more_than_the_total_it_was_given(n: int, first: int, more: int, again: int) -> None:
    scored: list[int] = []

    class Counting:
        @ap.hookimpl
        def apportion_score(self, batch: ap.Batch) -> None:
            scored.append(len(batch.rows))

    with tiny_explainer(plugins=[Counting()]) as explainer:
        try:
            result = explainer.attribute(" ".join("abcdefghijklmn"[:n]), " x", budget=first)
            for step in (more, again):
                budget = first = first + step
                result = explainer.refine(result, budget=budget)
                assert result.provenance.evaluations <= budget
                assert sum(scored) <= budget
                assert result.provenance.method != "hierarchical" or result.estimand == "Owen value"
        except ap.BudgetError:
            assert not scored  # too small for the first run
        except ap.InputError as error:
            assert "nothing to refine" in str(error)


def test_the_default_budget_that_it_names_holds() -> None:
    with tiny_explainer() as explainer:
        provenance = explainer.attribute(WORDS, " x").provenance
        assert provenance.budget == DEFAULT_BUDGET
        assert provenance.evaluations <= DEFAULT_BUDGET
        assert f"the default budget of {DEFAULT_BUDGET:,} evaluations" in provenance.method_reason
        until = explainer.attribute(WORDS, " x", until=1e-9, budget=100).provenance
        assert (until.method, until.evaluations) == ("gp_shap", 100)


@pytest.mark.parametrize("target", [" x", None])
def test_a_budget_that_gives_nothing_is_refused_before_the_model_runs(target: str | None) -> None:
    with tiny_explainer(plugins=[Unused()]) as explainer:
        with pytest.raises(
            ap.BudgetError,
            match=r"4 evaluations for 12 features; the budget of 1 evaluation is too small. Give budget=4 or more",
        ):
            explainer.attribute(WORDS, target, budget=1)
        with pytest.raises(ap.BudgetError, match=r"the budget of 1 evaluation is too small\. Give budget=2 or more\.$"):
            explainer.attribute("word", target, budget=1)
        slots = ap.Template("{a} {b}", {"a": "x", "b": "y"}, {"a": ["p", "q"], "b": ["r", "s"]})
        with pytest.raises(ap.BudgetError, match=r"4 coalitions of 4 evaluations each.*Give budget=16 or more"):
            explainer.attribute(slots, target, budget=15)


class Unused:
    """Fails when the model is about to score."""

    @ap.hookimpl
    def apportion_score(self, batch: object) -> object:
        raise AssertionError("the model must not run")


def test_options_that_belong_to_the_choice_are_not_the_users_to_set() -> None:
    with tiny_explainer() as explainer, pytest.raises(ap.InputError, match="write method='hierarchical' to set it"):
        explainer.attribute(WORDS, " x", budget=20, scores="ablation")


def test_values_of_tokens_add_up_where_it_samples() -> None:
    with tiny_explainer() as explainer:
        result = explainer.attribute(WORDS, " xyz", budget=60)
        assert result.provenance.method == "gp_shap"
        assert abs(result.token_values.sum(0) - result.values).max() < 1e-9

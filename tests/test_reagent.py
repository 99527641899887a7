"""ReAGent against its own rule, on a view of tokens whose probabilities are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.game.token_features import features_of_tokens
from apportion.game.token_view import TokenView
from apportion.testing import tiny, tiny_explainer
from apportion_plugins.methods.reagent import Reagent, TargetAmongTop

P, F = 7, 6


def game_of(scored: list[int] | None = None, budget: int | None = None) -> ap.Game:
    """Seven tokens, the first of no feature; the target needs tokens 3 and 5 (features 2 and 4)."""
    prompt = tuple(range(10, 10 + P))

    def score(prompts: Sequence[tuple[int, ...]], target_fn: ap.TargetFunction) -> torch.Tensor:
        if scored is not None:
            scored.append(len(prompts))
        there = torch.tensor([[a == b for a, b in zip(ids, prompt, strict=True)] for ids in prompts])
        assert bool(there[:, 0].all()), "a token of no feature was replaced"
        if isinstance(target_fn, TargetAmongTop):
            hit = (there[:, 3] & there[:, 5]).double()
            return torch.stack([hit, hit, hit], 1)
        first, second = 0.1 + 0.8 * there[:, 3].double(), 0.1 + 0.8 * there[:, 5].double()
        return torch.stack([first * second, first, second], 1)

    def view(charge: Callable[[int], None]) -> TokenView:
        def counted(prompts: Sequence[tuple[int, ...]], target_fn: ap.TargetFunction) -> torch.Tensor:
            charge(len(prompts))
            return score(prompts, target_fn)

        target = ap.Target((1, 2), ("a", "b"), "ab")
        return TokenView(
            prompt, (None, *range(F)), target, "log_prob", counted, lambda: torch.zeros(P, 20, dtype=torch.float64)
        )

    return ap.Game([str(i) for i in range(F)], 3, lambda mask: [], lambda rows: torch.empty(0), tokens=view,
                   budget=budget)  # fmt: skip


def run(game: ap.Game, budget: int | None = None, seed: int = 0, **options: Any) -> ap.Estimate:
    return Reagent().run(game, budget=budget, rng=torch.Generator().manual_seed(seed), **options)


def test_the_features_that_the_target_needs_get_the_importance() -> None:
    found = torch.stack([run(game_of(), seed=seed, keep_top_n=2, num_probes=32).values for seed in range(4)]).mean(0)
    assert torch.allclose(found.sum(0), torch.ones(3, dtype=torch.float64))
    assert set(found[:, 0].topk(2).indices.tolist()) == {2, 4}
    assert int(found[:, 1].argmax()) == 2
    assert int(found[:, 2].argmax()) == 4


def test_probes_end_when_what_is_kept_suffices_and_cost_two_evaluations_a_step() -> None:
    scored: list[int] = []
    game = game_of(scored)
    estimate = run(game, keep_top_n=2)
    assert estimate.extras["probes_ended"] == 16
    assert scored[0] == 1
    assert scored[1::2] == scored[2::2], "each step asks for the probes that go on, twice"
    assert scored[1::2] == sorted(scored[1::2], reverse=True)
    assert game.evaluations == sum(scored)
    # With all features kept every probe ends at once.
    at_once = run(game_of(), keep_top_n=F)
    assert at_once.extras["probe_steps"] == 1
    # Replacing what scores highest never leaves the target where it is, unless by chance.
    inverted = run(game_of(), keep_top_n=F, invert_keep=True, max_probe_steps=5)
    assert (inverted.extras["probes_ended"], inverted.extras["probe_steps"]) == (0, 5)
    assert "0 of 16 probes ended; all are averaged" in inverted.notes


def test_one_step_by_hand() -> None:
    """The rule of the paper: replaced features move by the logit of the drop, the others by its opposite."""
    estimate = run(game_of(), num_probes=1, max_probe_steps=1, keep_ratio=0.5, keep_top_n=0, seed=3)
    rng = torch.Generator().manual_seed(3)
    scores = torch.rand(1, F, 1, generator=rng, dtype=torch.float64)[0].repeat(1, 3)
    replaced = (torch.rand((1, F), generator=rng) < 0.3)[0].tolist()
    first, second = (0.1 if replaced[i] else 0.9 for i in (2, 4))
    for k, drop in enumerate((0.81 - first * second, 0.9 - first, 0.9 - second)):
        for i in range(F):
            scores[i, k] += torch.logit(torch.tensor((drop if replaced[i] else -drop) / 2 + 0.5).double())
    assert torch.allclose(estimate.values, scores.softmax(0), atol=1e-9)
    assert bool(estimate.std_error.isnan().all())


def test_the_budget_is_kept() -> None:
    for budget in (33, 64, 65, 100, 1000):
        game = game_of(budget=budget)
        run(game, budget=budget, keep_top_n=2)
        assert game.evaluations <= budget
    with pytest.raises(ap.BudgetError, match="takes 33 evaluations, and the budget is 32"):
        run(game_of(), budget=32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep_top_n": -1}, "keep_top_n=-1"),
        ({"keep_top_n": 0}, "requires keep_ratio"),
        ({"invert_keep": "x"}, "invert_keep='x'"),
        ({"keep_ratio": "x"}, "keep_ratio='x'"),
        ({"keep_top_n": 0, "keep_ratio": 1.5}, "keep_ratio=1.5"),
        ({"replacing_ratio": 0}, "replacing_ratio=0"),
        ({"num_probes": 0}, "num_probes=0"),
        ({"stopping_condition_top_k": 0}, "stopping_condition_top_k=0"),
        ({"max_probe_steps": 0}, "max_probe_steps=0"),
        ({"replacement_model": 3}, "is not a transformers model"),
    ],
)
def test_bad_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        run(game_of(), **options)


def test_on_a_model_with_words_and_with_another_model_for_the_replacements(explainer: ap.Explainer) -> None:
    options: dict[str, Any] = {"method": "reagent", "num_probes": 4, "max_probe_steps": 4}
    words = explainer.attribute("one two three", " x", budget=40, **options)
    assert words.values.sum() == pytest.approx(1)
    assert (words.unit, words.provenance.evaluations <= 40) == ("importance", True)
    again = explainer.attribute("one two three", " x", budget=40, **options)
    np.testing.assert_array_equal(words.values, again.values)
    other = explainer.attribute("one two three", " x", replacement_model=tiny.model("gpt2"), **options)
    assert not np.array_equal(words.values, other.values)
    cost = explainer.estimate("one two three", " x", budget=40, **options)
    assert (cost.at_most, cost.evaluations <= 40) == (True, True)
    with pytest.raises(ap.CapabilityError, match="This game has no prompt"):
        run(ap.Game.from_function(lambda mask: mask.sum(1), 3))


class Requests:
    """Keeps what runs were asked to do."""

    def __init__(self) -> None:
        self.seen: list[ap.Request] = []

    @ap.hookimpl
    def apportion_before_run(self, request: ap.Request) -> None:
        self.seen.append(request)


@pytest.mark.parametrize("adds_start", [False, True])
def test_tokens_belong_to_the_feature_that_most_of_their_text_lies_in(adds_start: bool) -> None:
    """White space goes with the word after it, whatever the tokenizer puts where; special tokens to nobody."""
    requests, tokenizer = Requests(), tiny.tokenizer(adds_start=adds_start)
    with tiny_explainer(plugins=[requests], adds_start=adds_start) as explainer:
        for prompt in (ap.Text("ab  cd e"), ap.Text("ab cd", by="tokens"), ap.Template("x {a}y", {"a": "ab"})):
            explainer.attribute(prompt, " x", method="ablation")
    assert len(requests.seen) == 3
    for request in requests.seen:
        ids = request.renderer.full().ids
        owners = features_of_tokens(request.adapter, tokenizer, ids)
        assert len(owners) == len(ids)
        assert {o for o in owners if o is not None} == set(range(len(request.adapter.features)))
        assert (ids[0] == tokenizer.bos_token_id) is adds_start
        assert not adds_start or owners[0] is None

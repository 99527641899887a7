"""What a run would cost, said before it starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import apportion as ap
from apportion.testing import tiny

WORDS = "one two three four five six seven eight nine ten eleven twelve"
TEMPLATE = ap.Template("{a} of {b}, {c}", {"a": "x", "b": "y", "c": "z"}, {"a": ["p", "q"]})


class CountTokens:
    """Sees every batch that is scored."""

    def __init__(self) -> None:
        self.batches = 0

    @ap.hookimpl(wrapper=True)
    def apportion_score(self, session: ap.Session, batch: ap.ScoringBatch, request: ap.Request) -> Any:
        self.batches += 1
        return (yield)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"method": "kernel_shap", "budget": 100},
        {"method": "permutation", "seed": 3},
        {"method": "ablation", "target_fn": "entropy"},
        {"method": "lime", "target_fn": "contrast_prob_diff", "contrast": " no"},
        {"prompt": TEMPLATE},
    ],
)
def test_it_is_what_the_run_then_costs(asked: dict[str, Any]) -> None:
    asked = {"prompt": WORDS, "target": " yes"} | asked
    count = CountTokens()
    with ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[count]) as explainer:
        cost = explainer.estimate(**asked)
        assert count.batches == 2, "calibration"
        count.batches = 0
        result = explainer.attribute(**asked)
    made = result.provenance
    assert (cost.evaluations, cost.forwarded_tokens) == (made.evaluations, made.forwarded_tokens)
    assert (cost.method, cost.method_reason) == (made.method, made.method_reason)
    assert (cost.features, cost.target_tokens) == (len(result.features), len(result.target_tokens))
    assert cost.batches == count.batches
    assert not cost.at_most
    weights = sum(p.numel() * p.element_size() for p in tiny.model().parameters())
    assert cost.model_bytes == weights
    assert min(cost.seconds, cost.tokens_per_second, cost.batch_bytes) > 0
    assert cost.to_dict()["evaluations"] == cost.evaluations


def test_what_depends_on_what_is_found_is_an_upper_bound(explainer: ap.Explainer, capsys: Any) -> None:
    cost = explainer.estimate(WORDS, " yes", method="kernel_shap", until=0.1, budget=200)
    assert (cost.evaluations, cost.at_most) == (200, True)
    # A run that spends its budget asks in the same growing steps, which share less than one great step would.
    spent = explainer.attribute(WORDS, " yes", method="kernel_shap", until=1e-9, budget=200).provenance
    assert (cost.evaluations, cost.forwarded_tokens) == (spent.evaluations, spent.forwarded_tokens)
    at_once = explainer.estimate(WORDS, " yes", method="kernel_shap", budget=200)
    assert cost.forwarded_tokens > at_once.forwarded_tokens
    cost.show()
    out = capsys.readouterr().out
    assert "at most 200 distinct prompts in up to about" in out
    assert f"up to about {cost.forwarded_tokens:,} to forward" in out
    assert "tokens/s" in out


def test_it_refuses_what_a_run_refuses(explainer: ap.Explainer) -> None:
    for asked, message in (
        ({"budget": 3}, "the budget of 3 evaluations is too small"),
        ({"method": "kernel_shap", "sampled": 3}, "no option 'sampled'. Did you mean 'sampler'"),
        ({"target": ""}, "The target '' is empty"),
    ):
        with pytest.raises(ap.InputError, match=message):
            explainer.estimate(**({"prompt": WORDS, "target": " yes"} | asked))


def test_an_exact_table_that_nobody_could_wait_for_is_planned_in_no_time(explainer: ap.Explainer) -> None:
    cost = explainer.estimate(WORDS, " yes", method="shapley")
    assert cost.evaluations == 2**12
    assert torch.isfinite(torch.tensor(cost.seconds))

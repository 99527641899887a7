"""What a run would cost, said before it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import apportion as ap
from apportion.testing import tiny
from apportion.testing.echo import EchoBackend, EchoSession, echo_spec

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
    assert f"up to about {cost.forwarded_tokens:,} tokens to forward" in out
    assert "tokens/s" in out


def test_memory_of_gradients_and_time_of_traces() -> None:
    prompt = "one two three four five six"
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer:
        one = explainer.session.graph_bytes(len(tiny.tokenizer()(prompt)["input_ids"]), 4)
        single = explainer.estimate(prompt, " yes", method="input_x_gradient").batch_bytes
        path = explainer.estimate(prompt, " yes", method="integrated_gradients", steps=10)
        layers = explainer.estimate(prompt, " yes", method="layer_gradient_x_activation", layers="**.mlp").batch_bytes
        traced = explainer.estimate(prompt, " yes", method="attention")
    assert single is not None and path.batch_bytes is not None and layers is not None
    assert one < single < 1.5 * one
    assert path.batch_bytes > 9 * one
    assert layers > single
    assert any("for the largest batch, at most" in text for name, text in path.lines() if name == "memory")
    # What a trace takes is unknown; its time is that of the one that was made.
    assert traced.batch_bytes is None
    assert traced.tokens_per_second > 0
    assert all("largest batch" not in text for _, text in traced.lines())
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False, memory_budget=1000) as explainer:
        assert explainer.estimate(prompt, " yes", method="input_x_gradient").batch_bytes is None


def test_it_refuses_what_a_run_refuses(explainer: ap.Explainer) -> None:
    for asked, message in (
        ({"budget": 3}, "the budget of 3 evaluations is too small"),
        ({"method": "kernel_shap", "smpler": 3}, "no option 'smpler'. Did you mean 'sampler'"),
        ({"target": ""}, "The target is an empty string"),
    ):
        with pytest.raises(ap.InputError, match=message):
            explainer.estimate(**({"prompt": WORDS, "target": " yes"} | asked))


def test_an_exact_table_that_nobody_could_wait_for_is_planned_in_no_time(explainer: ap.Explainer) -> None:
    cost = explainer.estimate(WORDS, " yes", method="shapley")
    assert cost.evaluations == 2**12
    assert torch.isfinite(torch.tensor(cost.seconds))


class Clock:
    """A clock that moves only while the timed session reads."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedSession(EchoSession):
    """Reads each distinct token once, and takes time for passes, tokens, and pairs that attend to each other."""

    clock: Clock
    slower = 1.0

    def log_probs(self, batch: ap.ScoringBatch) -> torch.Tensor:
        before, tokens, pairs = self.kept.ids if self.kept else (), 0, 0
        for row in batch.rows:
            # One token after another, unlike the estimate.
            known = 0
            while known < min(len(before), len(row.prompt) - 1) and before[known] == row.read[known]:
                known += 1
            tokens += len(row.read) - known
            pairs += sum(range(known + 1, len(row.read) + 1))
            before = row.read
        self.kept = ap.ModelInput(before)
        several = self.slower if batch.n_rows > 1 else 1.0
        self.clock.now += several * (0.03 + 1e-3 * tokens + 3.5e-7 * pairs)
        return torch.linspace(-2, -1, batch.n_rows)[:, None].expand(-1, batch.n_targets)

    def release(self) -> None:
        self.kept = None


class TimedBackend(EchoBackend):
    """Opens a timed session with a long context."""

    def __init__(self, clock: Clock, slower: float) -> None:
        super().__init__()
        self._clock, self._slower = clock, slower
        self._layout = replace(self._layout, packing=True, batch_tokens=1024)

    def load(self, spec: ap.ModelSpec, **placement: Any) -> EchoSession:
        opened = super().load(spec, **placement)
        session = TimedSession(opened.tokenizer, opened.layout, opened.capabilities, 2**40)
        session.info = replace(opened.info, context_length=10_000)
        session.clock, session.slower = self._clock, self._slower
        return session


@pytest.mark.parametrize(("slower", "within"), [(1.0, 1.1), (1.5, 1.5)])
@pytest.mark.parametrize("letters", [20, 100, 600, 2000, 5000])
def test_the_time_is_that_of_the_run(
    monkeypatch: pytest.MonkeyPatch, letters: int, slower: float, within: float
) -> None:
    """Also where trials may not take as long as the prompts are, and where batches of several rows are slower."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    text = "".join(chr(ord("a") + i * i % 26) for i in range(letters))
    prompt = ap.Text(text, by=lambda text: [text[i : i + letters // 20] for i in range(0, letters, letters // 20)])
    with ap.Explainer(echo_spec(), backend=TimedBackend(clock, slower), progress=False) as explainer:
        for asked in ({"method": "ablation"}, {"method": "kernel_shap", "budget": 60}):
            cost = explainer.estimate(prompt, " x", **asked)
            trials, clock.now = clock.now, 0.0
            result = explainer.attribute(prompt, " x", **asked)
            assert result.provenance.forwarded_tokens == cost.forwarded_tokens
            assert 1 / within < cost.seconds / clock.now < within
            assert cost.tokens_per_second == pytest.approx(cost.forwarded_tokens / cost.seconds)
            assert trials < max(2.0, min(0.45 * clock.now, 8.0))
            assert (f"extrapolated to {letters + 1:,} tokens" in cost.measured) == (letters == 5000)
            clock.now = 0.0

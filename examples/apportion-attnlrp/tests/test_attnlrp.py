"""AttnLRP against the rules written out, its balance on many architectures, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from lrp_by_hand import relevance_of_logit

import apportion as ap
import apportion_attnlrp
from apportion.testing import WhiteBoxMethodContract, tiny, tiny_explainer
from apportion_attnlrp import AttnLRP

PROMPT, TARGET = ap.Text("one two", by="tokens"), "xyz"
WITHOUT_BIASES = ("llama", "qwen3", "gemma3", "mixtral")


class TestAttnLRP(WhiteBoxMethodContract):
    @pytest.fixture
    def method(self) -> AttnLRP:
        return AttnLRP()


class TestConstantWeights(TestAttnLRP):
    """All relevance arrives at tokens."""

    options = {"softmax": "constant"}
    complete = True


@contextmanager
def opened(model: torch.nn.Module, **settings) -> Iterator[ap.Explainer]:
    pair = (model, tiny.tokenizer(adds_start=True))
    with ap.Explainer(pair, plugins=[apportion_attnlrp], progress=False, **settings) as explainer:
        yield explainer


def explain(model: torch.nn.Module, **arguments) -> ap.Attribution:
    with opened(model) as explainer:
        arguments = {"method": "attnlrp", "target_fn": "logit", "attribute_generated": True, **arguments}
        return explainer.attribute(PROMPT, TARGET, **arguments)


def logits_before_each_token(model: torch.nn.Module) -> tuple[torch.Tensor, list[int]]:
    tokenizer = tiny.tokenizer(adds_start=True)
    prompt = tokenizer(PROMPT.text)["input_ids"]
    target = tokenizer(TARGET, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *target[:-1]]]), use_cache=False).logits
    return logits[0, len(prompt) - 1 :], target


@pytest.mark.parametrize("family", WITHOUT_BIASES)
def test_all_relevance_arrives(family: str) -> None:
    """At tokens, special and generated ones included; with the paper's rule, the softmax absorbs the rest."""
    model = tiny.model(family)
    logits, target = logits_before_each_token(model)
    logit = float(logits[range(3), target].sum())
    constant, paper = (explain(model, softmax=softmax) for softmax in ("constant", "taylor"))
    arrived = constant.values.sum() + constant.extras["relevance_of_other_tokens"]
    assert arrived == pytest.approx(logit, rel=1e-6)
    assert constant.extras["absorbed_by_softmax"] == 0.0
    arrived = paper.values.sum() + paper.extras["relevance_of_other_tokens"]
    assert arrived + paper.extras["absorbed_by_softmax"] == pytest.approx(logit, rel=1e-6)
    assert abs(paper.extras["absorbed_by_softmax"]) > 0.01 * abs(logit)
    for result in (constant, paper):
        assert result.extras["share_unaccounted_for"] < 1e-9
        assert result.extras["explained"] == pytest.approx(result.full_value, rel=1e-6) == pytest.approx(logit)
        assert result.provenance.evaluations == 1


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_what_biases_and_positions_absorb(family: str) -> None:
    model = copy.deepcopy(tiny.model(family))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.add_(0.3 * torch.randn(weight.shape, generator=draw, dtype=weight.dtype))
    logits, target = logits_before_each_token(model)
    for softmax in ("constant", "taylor"):
        result = explain(model, softmax=softmax)
        parts = {name: value for name, value in result.extras.items() if name.startswith(("rel", "absorbed"))}
        assert sum(parts.values()) == pytest.approx(float(logits[range(3), target].sum()), rel=1e-6)
        assert min(abs(parts["absorbed_by_biases"]), abs(parts["absorbed_by_positions"])) > 1e-3
        assert result.extras["share_unaccounted_for"] < 1e-9


def test_a_log_probability_is_less_than_its_logit() -> None:
    """What is explained is Σ z ∂f/∂z: of a log-probability, the logit minus the mean logit that the model expects."""
    model = tiny.model()
    logits, target = logits_before_each_token(model)
    expected = logits[range(3), target].sum() - (logits.softmax(-1) * logits).sum()
    result = explain(model, target_fn="log_prob", softmax="constant")
    assert result.values.sum() + result.extras["relevance_of_other_tokens"] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("target_fn", ["prob", "entropy"])
def test_the_whole_target_is_accounted_for_where_tokens_do_not_add_up(target_fn: str) -> None:
    result = explain(tiny.model(), target_fn=target_fn, softmax="constant", attribute_generated=False)
    parts = ("relevance_of_features", "relevance_of_other_tokens")
    assert sum(result.extras[name] for name in parts) == pytest.approx(result.extras["explained"], rel=1e-6)
    assert result.extras["relevance_of_features"] == pytest.approx(result.values.sum())


def test_the_rules_written_out() -> None:
    """On every token, for both target tokens, without a single gradient."""
    model = tiny.model()
    tokenizer = tiny.tokenizer(adds_start=True)
    prompt, target = tokenizer(PROMPT.text)["input_ids"], tokenizer("xy", add_special_tokens=False)["input_ids"]
    with opened(model) as explainer:
        found = explainer.attribute(PROMPT, "xy", method="attnlrp", target_fn="logit", attribute_generated=True)
    first = relevance_of_logit(model, prompt, target[0])
    second = relevance_of_logit(model, [*prompt, target[0]], target[1])
    np.testing.assert_allclose(found.token_values[0, :-1], first.tokens[1:], atol=1e-7)
    np.testing.assert_allclose(found.token_values[1], second.tokens[1:], atol=1e-7)
    assert found.extras["absorbed_by_softmax"] == pytest.approx(first.absorbed + second.absorbed, abs=1e-7)
    assert float(first.tokens.abs().max()) > 1e-2


def test_a_contrast_is_subtracted_and_balanced() -> None:
    result = explain(tiny.model(), target_fn="contrast_logits_diff", contrast="ab", attribute_generated=False)
    assert result.extras == {"share_unaccounted_for": pytest.approx(0.0, abs=1e-9)}


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("bloom", "no rule for its module 'transformer.h.0.mlp.gelu_impl', a BloomGelu"),
        ("mamba", "no rule for its module 'backbone.layers.0.mixer', a MambaMixer"),
        ("gemma2", "it caps logits"),
        ("phi3", "its attention 'model.layers.0.self_attn' consists of unknown modules, o_proj, qkv_proj"),
        ("gpt_neox", "consists of unknown modules, dense, query_key_value"),
        ("falcon", "consists of unknown modules, dense, query_key_value"),
    ],
)
def test_unknown_models_are_refused(family: str, reason: str) -> None:
    with pytest.raises(ap.CapabilityError, match=reason):
        explain(tiny.model(family))


def test_an_operation_between_modules_is_noticed() -> None:
    """A model whose modules are all known, but which does more with them."""
    model = copy.deepcopy(tiny.model())
    attention = model.model.layers[0].self_attn
    plain = attention.forward

    def forward(*args, **kwargs):
        states, weights = plain(*args, **kwargs)
        return (5 * states).tanh(), weights

    attention.forward = forward
    with pytest.raises(ap.CapabilityError, match=r"cannot account for .*% of the relevance: between its modules"):
        explain(model)


def test_an_option_that_is_none() -> None:
    with pytest.raises(ap.InputError, match="softmax='deep' must be 'taylor' or 'constant'"):
        explain(tiny.model(), softmax="deep")


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_layers_are_computed_again_where_memory_is_short(family: str) -> None:
    model = tiny.model(family)
    plain = explain(model)
    with opened(model, memory_budget=1) as explainer:
        small = explainer.attribute(PROMPT, TARGET, method="attnlrp", target_fn="logit", attribute_generated=True)
    np.testing.assert_allclose(small.values, plain.values, atol=1e-10)
    assert small.extras == pytest.approx(plain.extras, abs=1e-9)


@pytest.mark.parametrize("experts", ["eager", "grouped_mm", "batched_mm"])
def test_experts_however_they_are_computed(experts: str) -> None:
    model = copy.deepcopy(tiny.model("mixtral")).float()
    model.set_experts_implementation(experts)
    result = explain(model)
    np.testing.assert_allclose(result.values, explain(tiny.model("mixtral")).values, atol=1e-4)
    assert result.extras["share_unaccounted_for"] < 1e-4


def test_half_precision_loses_some_and_says_so() -> None:
    result = explain(tiny.model(dtype=torch.bfloat16))
    assert 1e-4 < result.extras["share_unaccounted_for"] < 0.5
    lost = any("of the relevance is lost by rounding" in note for note in result.provenance.notes)
    assert lost == (result.extras["share_unaccounted_for"] > 0.01)


def test_everything_together_by_name() -> None:
    with tiny_explainer(plugins=[apportion_attnlrp]) as explainer:
        result = explainer.attribute("one two three", " four", method="attnlrp")
    assert result.estimand == "AttnLRP relevance"
    assert result.provenance.options == {"softmax": "taylor"}

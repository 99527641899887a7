"""Attention weights: proven by the model's own numbers, chosen, combined, and given to features."""

from __future__ import annotations

import copy
import gc
import random
import string
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import nn
from torch.nn import functional

import apportion as ap
from apportion.results.recipe import decoded_options
from apportion.testing import tiny
from apportion.testing.inside import hooks_of
from apportion_backends.torch.attention_weights import gives_attention, recording_attention
from apportion_plugins.methods.attention import Attention
from copying import copying_model
from reversal import reversal_model, reversal_prompts, reversal_tokenizer

WORDS, TARGET = "one two three", " four"
IDS = tuple(range(60, 75))
ATTENDING = [family for family in tiny.FAMILIES if family != "mamba"]
SMALL: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
ATTENTION: dict[str, Any] = {"method": "attention"}


def explain(model: nn.Module) -> ap.Explainer:
    return ap.Explainer((model, tiny.tokenizer()))


def eager(family: str) -> tf.PreTrainedModel:
    """The same model, attending by its own code."""
    model = tiny.model(family)
    made = tf.AutoModelForCausalLM.from_config(
        tiny.config(family), attn_implementation="eager", experts_implementation="eager"
    )
    made.to(torch.float64).eval().load_state_dict(model.state_dict())
    return made


def traced(model: tf.PreTrainedModel, ids: tuple[int, ...] = IDS) -> ap.Trace:
    with explain(model) as explainer:
        found = explainer.session.trace(ids, (1,), attentions=True)  # type: ignore[attr-defined]
    assert isinstance(found, ap.Trace)
    return found


def random_model(config: tf.PretrainedConfig, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tf.AutoModelForCausalLM.from_config(config, **settings).to(dtype).eval()


@pytest.fixture(scope="module")
def llama() -> Iterator[ap.Explainer]:
    with explain(tiny.model()) as explainer:
        yield explainer


# Weights of the model


@pytest.mark.parametrize("family", ATTENDING)
def test_weights_are_those_of_the_model(family: str) -> None:
    """As the model returns them when it attends by its own code, or multiplies with values by the fused operation."""
    other = eager(family)
    with torch.no_grad():
        expected = other(torch.tensor([IDS]), output_attentions=True, use_cache=False).attentions
    for model in (tiny.model(family), other):
        before = hooks_of(model)
        found = traced(model)
        assert len(found.attentions) == len(expected) == len(found.attention_modules) == 2
        for weights, own in zip(found.attentions, expected, strict=True):
            # Eager code takes the softmax in fp32.
            torch.testing.assert_close(weights, own[0], atol=2e-7, rtol=1e-5)
        assert [module.split(".")[-2] for module in found.attention_modules] == ["0", "1"]
        assert hooks_of(model) == before


@pytest.mark.parametrize("family", ["llama", "gemma3", "gemma2", "falcon", "bloom"])
def test_rows_of_the_last_tokens_alone(family: str) -> None:
    with explain(tiny.model(family)) as explainer:
        session = explainer.session
        every, last = (session.trace(IDS, (1,), attentions=True, last=rows) for rows in (None, 3))  # type: ignore[attr-defined]
    assert every.attention_modules == last.attention_modules
    for weights, rows in zip(every.attentions, last.attentions, strict=True):
        assert rows.shape == (4, 3, len(IDS))
        torch.testing.assert_close(rows, weights[:, -3:], atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("family", ["llama", "gemma3", "falcon", "bloom"])
def test_a_lone_token_attends_to_itself(family: str) -> None:
    assert all(
        torch.equal(weights, torch.ones_like(weights)) for weights in traced(tiny.model(family), (65,)).attentions
    )


def test_a_sliding_window_and_a_cap_count() -> None:
    """Gemma-2 and Gemma-3: a token beyond the window has no weight; capped scores are those that are applied."""
    for family in ("gemma2", "gemma3"):
        near, far = traced(tiny.model(family)).attentions
        assert float(near.tril(-4).max()) == 0.0
        assert float(far.tril(-4).max()) > 0.0
    capped = copy.deepcopy(tiny.model("gemma2"))
    with torch.no_grad():
        for layer in capped.model.layers:
            layer.self_attn.q_proj.weight.mul_(30.0)
    free = copy.deepcopy(capped)
    for module in free.modules():
        if hasattr(module, "attn_logit_softcapping"):
            module.attn_logit_softcapping = None
    assert float((traced(capped).attentions[0] - traced(free).attentions[0]).abs().max()) > 1e-3


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(implementation: str, dtype: torch.dtype) -> None:
    half = random_model(tiny.config("llama"), dtype, attn_implementation=implementation)
    exact = copy.deepcopy(half).to(torch.float64)
    for weights, own in zip(traced(half).attentions, traced(exact).attentions, strict=True):
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights.double(), own, atol=0.02, rtol=0.05)


def test_a_model_in_training_attends_without_dropout_and_trains_on() -> None:
    config = tiny.config("gpt2")
    config.attn_pdrop = config.resid_pdrop = config.embd_pdrop = 0.5
    for implementation in ("sdpa", "eager"):
        model = random_model(config, attn_implementation=implementation)
        expected = traced(model).attentions
        model.train()
        for weights, own in zip(traced(model).attentions, expected, strict=True):
            assert torch.equal(weights, own)
        assert all(module.training for module in model.modules())


def test_only_layers_that_attend_are_counted() -> None:
    """A hybrid of recurrent and attending layers; the note says which ones attend."""
    config = tf.JambaConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=32, intermediate_size=48, **SMALL, num_key_value_heads=2,
        attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_d_state=4, mamba_dt_rank=4,
        bos_token_id=256, eos_token_id=257, pad_token_id=257,
    )  # fmt: skip
    model = random_model(config, experts_implementation="eager")
    assert traced(model).attention_modules == ("model.layers.1.self_attn",)
    with explain(model) as explainer:
        result = explainer.attribute(WORDS, TARGET, **ATTENTION, layers=0)
        assert "Only layers 1 of this model attend; layers= counts these alone." in result.provenance.notes
        with pytest.raises(ap.InputError, match="layers=1: this model has one attention layer, 0"):
            explainer.attribute(WORDS, TARGET, **ATTENTION, layers=1)


def test_weights_on_learned_sinks_go_to_no_token() -> None:
    config = tf.GptOssConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=32, intermediate_size=48, **SMALL, num_key_value_heads=2, head_dim=8,
        num_local_experts=4, num_experts_per_tok=2, bos_token_id=256, eos_token_id=257, pad_token_id=257,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    model = random_model(config, experts_implementation="eager")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.sinks.fill_(3.0)
    with explain(model) as explainer:
        result = explainer.attribute(ap.Text(WORDS, by="tokens"), "f", **ATTENTION)
    assert 0 < result.values.sum() < 0.9
    (note,) = (note for note in result.provenance.notes if "learned to attend to nothing" in note)
    assert note.startswith(f"{1 - result.values.sum():.0%} of the attention goes to no token")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_module_that_attends_twice_is_refused(implementation: str) -> None:
    """DiffLlama subtracts the attention of one half of its heads from that of the other."""
    config = tf.DiffLlamaConfig(
        vocab_size=tiny.VOCABULARY, hidden_size=32, intermediate_size=48, **SMALL, num_key_value_heads=2
    )
    model = random_model(config, attn_implementation=implementation)
    with pytest.raises(ap.CapabilityError, match="'model.layers.0.self_attn' attends more than once"):
        traced(model)


def test_models_that_do_not_attend_or_hide_it_are_refused() -> None:
    with explain(tiny.model("mamba")) as explainer:
        with pytest.raises(ap.CapabilityError, match="'attention' needs attentions.*take a model that attends"):
            explainer.attribute(WORDS, TARGET, **ATTENTION)
        with pytest.raises(ap.CapabilityError, match="No module of this model is known to return value vectors"):
            explainer.attribute(WORDS, TARGET, method="value_zeroing")
    flexible = random_model(tiny.config("llama"), attn_implementation="flex_attention")
    assert not gives_attention(flexible)


class Dropping(nn.Module):
    """Attention that drops weights at random even while it is evaluated."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(states, states, states, dropout_p=0.5)


def test_other_weights_than_those_of_queries_and_keys_are_refused() -> None:
    model = copy.deepcopy(tiny.model())
    model.add_module("dropping", Dropping())
    states = torch.randn(1, 2, 5, 8, dtype=torch.float64)
    with (
        pytest.raises(ap.CapabilityError, match="'dropping' attends with other weights than those computed again"),
        recording_attention(model, wanted=True),
    ):
        model.dropping(states)
    assert not hooks_of(model)


class Pretending(tf.LlamaForCausalLM):
    """Returns weights that it does not attend with."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        found.attentions = tuple(layer.flip(-1) for layer in found.attentions or ())
        return found


def test_returned_weights_that_were_not_applied_are_refused() -> None:
    config = tiny.config("llama")
    config._attn_implementation = "eager"
    with pytest.raises(ap.CapabilityError, match="did not multiply with values in this forward pass"):
        traced(Pretending(config).double().eval())


def test_other_threads_score_meanwhile(llama: ap.Explainer) -> None:
    """Only the thread that traces is watched."""
    model, ids = tiny.model(), torch.tensor([IDS])
    expected, stop, wrong = traced(model).attentions, threading.Event(), []

    def score() -> None:
        with torch.no_grad():
            first = model(ids[:, :7]).logits
            while not stop.is_set():
                if not torch.equal(model(ids[:, :7]).logits, first):
                    wrong.append("other logits")

    thread = threading.Thread(target=score)
    thread.start()
    try:
        for _ in range(10):
            found = traced(model)
            assert found.attention_modules == ("model.layers.0.self_attn", "model.layers.1.self_attn")
            assert all(torch.equal(one, own) for one, own in zip(found.attentions, expected, strict=True))
    finally:
        stop.set()
        thread.join()
    assert not wrong


# The method


def rows(family: str = "llama") -> np.ndarray:
    """Weights of each layer and head at the positions before the target's tokens, [layers, heads, T, P]."""
    prompt, target = (tiny.tokenizer()(text)["input_ids"] for text in (WORDS, TARGET))
    with torch.no_grad():
        found = eager(family)(torch.tensor([[*prompt, *target[:-1]]]), output_attentions=True, use_cache=False)
    return torch.stack(found.attentions)[:, 0, :, len(prompt) - 1 :, : len(prompt)].numpy()


PROMPT = ap.Text(WORDS, by="tokens")


@pytest.mark.parametrize("family", ATTENDING)
def test_values_by_hand(family: str) -> None:
    with explain(tiny.model(family)) as explainer:
        result = explainer.attribute(PROMPT, TARGET, **ATTENTION)
    expected = rows(family).mean((0, 1))
    np.testing.assert_allclose(result.token_values, expected, atol=2e-7)
    np.testing.assert_allclose(result.values, expected.mean(0), atol=2e-7)
    assert (result.estimand, result.unit, result.signed) == ("attention weight", "weight", False)
    assert result.provenance.evaluations == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layers": 1, "heads": [0, -1]}, lambda w: w[1, [0, 3]].mean(0)),
        ({"layers": -1, "aggregate_heads": "max"}, lambda w: w[1].max(0)),
        ({"layers": [1, 0], "heads": (1, 3), "aggregate_layers": "min"}, lambda w: w[:, 1:3].mean(1).min(0)),
        ({"heads": range(2), "aggregate_layers": "sum", "aggregate_heads": "sum"}, lambda w: w[:, :2].sum((0, 1))),
        ({"heads": {"0": 2, 1: "all"}}, lambda w: (w[0, 2] + w[1].mean(0)) / 2),
        ({"heads": {-1: [0]}}, lambda w: w[1, 0]),
        ({"layers": "all", "aggregate_heads": "min"}, lambda w: w.min(1).mean(0)),
    ],
)
def test_layers_and_heads_are_chosen_and_combined(llama: ap.Explainer, options: dict[str, Any], expected: Any) -> None:
    result = llama.attribute(PROMPT, TARGET, **ATTENTION, **options)
    np.testing.assert_allclose(result.token_values, expected(rows()), atol=2e-7)


@pytest.mark.parametrize("picked", [range(1, 4, 2), (1, 3), [-1, 0], {1: range(2), 0: "all"}])
def test_choices_survive_a_file(llama: ap.Explainer, picked: Any, tmp_path: Path) -> None:
    result = llama.attribute(PROMPT, TARGET, **ATTENTION, heads=picked)
    loaded = ap.Attribution.load(result.save(tmp_path / "result.json"))
    assert loaded.recipe == result.recipe
    assert loaded.recipe is not None
    assert decoded_options(loaded.recipe.options) == {"heads": picked}
    for name in ("module_values", "module_token_values"):
        np.testing.assert_allclose(loaded.extras[name], result.extras[name])


def test_rollout_by_hand(llama: ap.Explainer) -> None:
    prompt, target = (tiny.tokenizer()(text)["input_ids"] for text in (WORDS, TARGET))
    with torch.no_grad():
        found = eager("llama")(torch.tensor([[*prompt, *target[:-1]]]), output_attentions=True, use_cache=False)
    first, second = (0.5 * layer[0].mean(0) + 0.5 * torch.eye(layer.shape[-1]) for layer in found.attentions)
    expected = (second @ first)[len(prompt) - 1 :, : len(prompt)].numpy()
    result = llama.attribute(PROMPT, TARGET, **ATTENTION, aggregate_layers="rollout")
    np.testing.assert_allclose(result.token_values, expected, atol=2e-7)


def test_what_is_kept_of_layers_and_heads(llama: ap.Explainer) -> None:
    words = llama.attribute(WORDS, TARGET, **ATTENTION, keep_heads=True)
    extras, weights = words.extras, rows()
    assert extras["modules"] == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    spans = [slice(0, 3), slice(4, 7), slice(8, 13)]
    by_word = np.stack([weights[..., span].sum(-1) for span in spans], axis=-1)
    np.testing.assert_allclose(extras["attentions"], by_word, atol=1e-6)
    np.testing.assert_allclose(extras["module_values"], by_word.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(extras["module_token_values"], by_word.mean(1), atol=1e-6)
    np.testing.assert_allclose(words.values, by_word.mean((0, 1, 2)), atol=1e-6)
    assert extras["first_token_share"] == pytest.approx(weights[..., 0].mean(), abs=1e-6)
    blanks = weights[..., [3, 7]].sum(-1).mean()
    prefix = 1 - weights.sum(-1).mean()
    assert extras["special_share"] == pytest.approx(blanks / (1 - prefix), abs=1e-6)
    shares = llama.attribute(WORDS, TARGET, **ATTENTION, normalize="features")
    assert shares.values.sum() == pytest.approx(1)
    with pytest.raises(ap.InputError, match="the same number of heads in each layer"):
        llama.attribute(WORDS, TARGET, **ATTENTION, keep_heads=True, heads={0: 1, 1: [0, 1]})


def test_a_sink_is_pointed_out() -> None:
    """A first token that gets most of the weight, whatever it says."""
    model = copying_model(lambda position: 0, length=24)
    with explain(model) as explainer:
        result = explainer.attribute(PROMPT, TARGET, **ATTENTION, layers=0)
        assert result.extras["first_token_share"] > 0.99
        assert any("falls on the first token" in note for note in result.provenance.notes)
        plain = explainer.attribute(PROMPT, TARGET, **ATTENTION, layers=1)
    assert not any("falls on the first token" in note for note in plain.provenance.notes)


def test_the_share_of_the_first_token_is_of_all_weights() -> None:
    """A sum over layers, or largest weights, add up to more than 1 and are no shares themselves."""
    with explain(copying_model(lambda position: 0, length=24)) as explainer:
        mean, added, largest = (
            explainer.attribute(PROMPT, TARGET, **ATTENTION, aggregate_layers=how) for how in ("mean", "sum", "max")
        )
    share = mean.extras["first_token_share"]
    assert 0.5 < share < 1
    assert added.extras["first_token_share"] == pytest.approx(share)
    assert largest.extras["first_token_share"] < 1
    for result in (mean, added):
        assert any(note.startswith(f"{share:.0%} of the weight falls on") for note in result.provenance.notes)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("0-1", [0, 1]), ("1-1", [1]), ("0:1", [0]), ("1:2", [1]), ("-2:-1", [0]), (":", [0, 1])],
)
def test_a_range_may_be_a_text(llama: ap.Explainer, text: str, meant: list[int]) -> None:
    """As the command line passes it on."""
    expected = llama.attribute(PROMPT, TARGET, **ATTENTION, layers=meant, heads={0: [1, 2], 1: [1, 2]})
    found = llama.attribute(PROMPT, TARGET, **ATTENTION, layers=text, heads={"0": "1-2", "1": "1:3"})
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 2}, "layers=2: this model has layers 0 to 1"),
        ({"layers": "last"}, "layers='last' must be 'all', a number"),
        ({"layers": []}, r"layers=\[\] must be 'all'"),
        ({"layers": [0, -2]}, "names layer 0 twice"),
        ({"layers": (1, 1)}, r"layers=\(1, 1\) has none: the first must be before the end"),
        ({"layers": (0, 3)}, r"layers=\(0, 3\): this model has layers 0 to 1"),
        ({"layers": "0-2"}, "layers='0-2': this model has layers 0 to 1"),
        ({"layers": "1-0"}, "layers='1-0' has none"),
        ({"layers": (0, 1, 2)}, r"must be a tuple \(first, end\), or a list"),
        ({"layers": True}, "layers=True must be 'all'"),
        ({"layers": np.arange(2)}, "must be 'all', a number"),
        ({"layers": {0: 1}}, "must be 'all', a number"),
        ({"heads": 4}, "heads=4: layer 0 has heads 0 to 3"),
        ({"heads": {0: 1}, "layers": [0, 1]}, "must name the heads of all chosen layers; it lacks 1"),
        ({"heads": {}}, "has no layers"),
        ({"heads": {9: 0}}, "heads={9: 0}: this model has layers 0 to 1"),
        ({"heads": {"top": 1}}, "'top' is not a number"),
        ({"heads": {0: 1, "-2": 1}}, "names layer 0 twice"),
        ({"aggregate_layers": "median"}, "No aggregator of layers is called 'median'.*rollout"),
        ({"aggregate_heads": "rollout"}, "No aggregator of heads is called 'rollout'"),
        ({"which": "self"}, "No kind of attention is called 'self'"),
        ({"which": "encoder"}, "which='encoder' is for encoder–decoder models"),
        ({"which": "decoder"}, "which='decoder' is for encoder–decoder models"),
        ({"keep_heads": 1}, "keep_heads=1 must be True or False"),
    ],
)
def test_options_are_checked_before_the_model_runs(llama: ap.Explainer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.ApportionError, match=message):
        llama.attribute(PROMPT, TARGET, **ATTENTION, **options)


def test_the_cost_is_known(llama: ap.Explainer) -> None:
    result = llama.attribute(PROMPT, TARGET, **ATTENTION)
    cost = llama.estimate(PROMPT, TARGET, **ATTENTION)
    assert cost.evaluations == result.provenance.evaluations == 1
    assert cost.forwarded_tokens == result.provenance.forwarded_tokens == len(WORDS) + len(TARGET) - 1


def test_nothing_is_left_after_many_runs_and_errors(llama: ap.Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny.model(), torch.tensor([IDS])
    with torch.no_grad():
        before = model(ids).logits

    def counts() -> tuple[int, int]:
        gc.collect()
        return len(hooks_of(model)), sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    llama.attribute(PROMPT, TARGET, **ATTENTION)
    expected = counts()
    for _ in range(100):
        llama.attribute(PROMPT, TARGET, **ATTENTION)
    assert counts() == expected
    for error in (RuntimeError("in the middle"), KeyboardInterrupt()):

        def fail(*args: Any, error: BaseException = error, **kwargs: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(model.model.layers[1].mlp, "forward", fail)
            with pytest.raises((ap.ApportionError, RuntimeError, KeyboardInterrupt)):
                llama.attribute(PROMPT, TARGET, **ATTENTION)
        del error, fail
        assert counts()[0] == expected[0]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)


# Known answers


@pytest.mark.parametrize("reverse", [False, True], ids=["copied", "reversed"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("attention", {}),
        ("attention", {"layers": 0}),
        ("attention", {"aggregate_layers": "rollout"}),
        ("value_zeroing", {}),
        ("value_zeroing", {"metric": "euclidean", "layers": 0}),
    ],
)
def test_copied_letters_are_found(reverse: bool, method: str, options: dict[str, Any]) -> None:
    """The source of each letter that the model writes is known, and gets the largest value."""
    letters, count = random.Random(0).sample(string.ascii_letters, 16), 16
    text = "".join(letters)
    target = text[::-1] if reverse else text
    places = list(range(count))[::-1] if reverse else list(range(count))
    source = {count - 1 + t: place for t, place in enumerate(places)}
    with explain(copying_model(lambda position: source.get(position, 0), 2 * count)) as explainer:
        assert (
            explainer.attribute(
                ap.Text(text, by="tokens"), None, method="ablation", budget=None, generate={"max_new_tokens": count}
            ).target_text
            == target
        )
        result = explainer.attribute(ap.Text(text, by="tokens"), target, method=method, **options)
    assert (result.token_values.argmax(1) == places).mean() >= 0.95


# Encoder–decoder models, through a double of the model's internals


class Halves:
    """Internals of an encoder–decoder model with made-up attention: 3 source tokens, a start token, 2 target tokens."""

    prompt_ids, feature_of, special = (1, 2, 3), (0, 1, None), (False, False, True)
    joint, fixed = False, 0
    targets = ((7, 8),)

    def __init__(self, generated: tuple[int | None, ...]) -> None:
        self.generated_feature_of = generated
        draw = torch.Generator().manual_seed(0)

        def weights(rows: int, columns: int) -> torch.Tensor:
            return torch.rand(4, rows, columns, generator=draw).softmax(-1)

        self.encoder = [weights(3, 3) for _ in range(2)]
        self.decoder = [weights(2, 2).tril() for _ in range(2)]
        self.cross = [weights(2, 3) for _ in range(2)]

    def trace(self, **asked: Any) -> ap.Trace:
        assert set(asked) == {"attentions", "last"}
        rows = slice(None) if asked["last"] is None else slice(-asked["last"], None)
        return ap.Trace(
            attentions=tuple(weights[:, rows] for weights in self.decoder),
            encoder_attentions=tuple(self.encoder),
            cross_attentions=tuple(weights[:, rows] for weights in self.cross),
        )


def of_halves(generated: tuple[int | None, ...] = (None,), **options: Any) -> tuple[Halves, ap.Estimate]:
    halves, features = Halves(generated), 2 + sum(owner is not None for owner in generated)
    game = ap.Game([str(i) for i in range(features)], 3, lambda mask: [], lambda rows: torch.zeros(0, 3))
    game.inside = lambda: halves  # type: ignore[method-assign, assignment, return-value]
    return halves, Attention().run(game, budget=None, rng=torch.Generator(), **options)


def test_cross_attention_is_the_default() -> None:
    halves, found = of_halves()
    expected = torch.stack(halves.cross).double().mean((0, 1))
    torch.testing.assert_close(found.values[:, 1:].T, expected[:, :2])
    torch.testing.assert_close(found.values[:, 0], expected[:, :2].mean(0))
    assert found.extras["modules"] == ["cross.0", "cross.1"]
    assert found.extras["special_share"] == pytest.approx(float(expected[:, 2].mean()))


def test_generated_tokens_get_the_decoders_attention() -> None:
    halves, found = of_halves((2,))
    cross, decoder = (torch.stack(part).double().mean((0, 1)) for part in (halves.cross, halves.decoder))
    torch.testing.assert_close(found.values[:2, 1:].T, cross[:, :2])
    torch.testing.assert_close(found.values[2, 1:], decoder[:, 1])
    assert float(found.values[2, 1]) == 0.0  # the first target token cannot depend on itself
    _, alone = of_halves((2,), which="decoder")
    torch.testing.assert_close(alone.values[2, 1:], decoder[:, 1])
    assert not alone.values[:2].any()


def test_the_encoders_attention_is_the_mean_over_its_positions() -> None:
    halves, found = of_halves(which="encoder", layers=1)
    expected = halves.encoder[1].double().mean((0, 1))[:2]
    for column in range(3):
        torch.testing.assert_close(found.values[:, column], expected)
    halves, rolled = of_halves(which="encoder", aggregate_layers="rollout")
    first, second = (0.5 * layer.double().mean(0) + 0.5 * torch.eye(3) for layer in halves.encoder)
    torch.testing.assert_close(rolled.values[:, 0], (second @ first).mean(0)[:2])


def test_kinds_that_have_no_features_or_no_product_are_refused() -> None:
    with pytest.raises(ap.InputError, match="attribute_generated=True"):
        of_halves(which="decoder")
    with pytest.raises(ap.InputError, match="which='cross' is to another one"):
        of_halves(aggregate_layers="rollout")


@pytest.mark.parametrize("family", tiny.SEQ2SEQ_FAMILIES)
def test_encoder_decoder_models(family: str) -> None:
    """As the model returns all three kinds when it attends by its own code; the position before each token is read."""
    model = tiny.model(family)
    own = tf.AutoModelForSeq2SeqLM.from_config(tiny.config(family), attn_implementation="eager")
    own.to(torch.float64).eval().load_state_dict(model.state_dict())
    own.generation_config = model.generation_config  # it says how a decoder starts
    with explain(model) as fused, explain(own) as plain:
        start = fused.session._start.ids  # type: ignore[attr-defined]
        target, prompt = (9, 8, 7), IDS[:6]
        read = torch.tensor([[*start, *target[:-1]]])
        with torch.no_grad():
            found = own(torch.tensor([prompt]), decoder_input_ids=read, output_attentions=True, use_cache=False)
        for explainer in (fused, plain):
            trace = explainer.session.trace(prompt, target, attentions=True)  # type: ignore[attr-defined]
            last = explainer.session.trace(prompt, target, attentions=True, last=2)  # type: ignore[attr-defined]
            for name in ("attentions", "encoder_attentions", "cross_attentions"):
                expected = getattr(found, "decoder_attentions" if name == "attentions" else name)
                assert len(getattr(trace, name)) == len(expected) == 2
                for weights, rows, ours in zip(getattr(trace, name), getattr(last, name), expected, strict=True):
                    torch.testing.assert_close(weights, ours[0], atol=2e-7, rtol=1e-5)
                    few = weights if name == "encoder_attentions" else weights[:, -2:]
                    torch.testing.assert_close(rows, few, atol=1e-12, rtol=1e-9)
            assert all(name.startswith(("decoder.", "model.decoder.")) for name in trace.attention_modules)
        result = fused.attribute(PROMPT, TARGET, **ATTENTION)
        again = plain.attribute(PROMPT, TARGET, **ATTENTION)
    np.testing.assert_allclose(result.token_values, again.token_values, atol=2e-7)
    assert result.values.sum() + result.extras["special_share"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", ["attention", "value_zeroing"])
def test_letters_that_a_trained_model_reverses_are_found(method: str) -> None:
    """The source of each letter that this T5 writes is known, and gets the largest value."""
    hits = []
    with ap.Explainer((reversal_model(), reversal_tokenizer())) as explainer:
        for prompt in reversal_prompts(8):
            result = explainer.attribute(prompt, " ".join(prompt.split()[::-1]), features="words", method=method)
            hits += list(result.token_values[:5].argmax(1) == np.arange(5)[::-1])
    assert np.mean(hits) >= 0.95


# Inseq


def test_weights_are_inseqs() -> None:
    inseq = pytest.importorskip("inseq")
    model, tokenizer = tiny.model("gpt2", torch.float32), copy.deepcopy(tiny.tokenizer())
    theirs = inseq.load_model(eager("gpt2").float(), "attention", tokenizer=tokenizer)
    out = theirs.attribute(WORDS, WORDS + TARGET, show_progress=False).sequence_attributions[0]
    with explain(model) as explainer:
        result = explainer.attribute(PROMPT, TARGET, **ATTENTION)
    weights = out.target_attributions[: len(WORDS)].mean((-1, -2)).T  # without the target's own tokens
    np.testing.assert_allclose(result.token_values, weights, atol=1e-4)

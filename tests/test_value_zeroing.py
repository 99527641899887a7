"""Value zeroing: by straight loops from its definition, at its cost, and without traces."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

import apportion as ap
from apportion.testing import tiny
from apportion.testing.inside import hooks_of
from apportion_plugins.methods.value_modules import columns, value_modules

WORDS, TARGET = "one two", " xyz"
PROMPT = ap.Text(WORDS, by="tokens")
ZEROING: dict[str, Any] = {"method": "value_zeroing"}
PROOF = 4
"""Evaluations before the first token."""

VARIANTS: dict[str, dict[str, Any]] = {
    "falcon-groups": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon-heads": {"multi_query": False},
    "falcon-alibi": {"alibi": True},
}


def model_of(name: str) -> tf.PreTrainedModel:
    """A tiny model of a family, or of a variant of Falcon."""
    if name in tiny.FAMILIES:
        return tiny.model(name)
    if name in VARIANTS:
        config = tiny.config("falcon")
        for key, value in VARIANTS[name].items():
            setattr(config, key, value)
    else:
        config = {
            "mpt": lambda: tf.MptConfig(vocab_size=tiny.VOCABULARY, d_model=32, n_layers=2, n_heads=4, max_seq_len=64),
            "bigcode": lambda: tf.GPTBigCodeConfig(
                vocab_size=tiny.VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64
            ),
        }[name]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tf.AutoModelForCausalLM.from_config(config).double().eval()


def explain(model: nn.Module) -> ap.Explainer:
    return ap.Explainer((model, tiny.tokenizer()))


@pytest.fixture(scope="module")
def llama() -> Iterator[ap.Explainer]:
    with explain(tiny.model()) as explainer:
        yield explainer


# The definition


class ZeroValue(TorchFunctionMode):
    """Zeroes the value vector of one token where it is attended to, in one layer: what projects it does not matter."""

    def __init__(self, layer: int, token: int, heads: Sequence[int] | None = None) -> None:
        super().__init__()
        self.layer, self.token, self.heads = layer, token, heads
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fused, product = func is functional.scaled_dot_product_attention, func in (torch.bmm, torch.matmul)
        # Models that attend by their own code multiply a square of weights with values.
        if fused or (product and args[0].ndim > 2 and args[0].shape[-1] == args[0].shape[-2] == args[1].shape[-2]):
            if self.calls == self.layer:
                place = 2 if fused else 1
                value = args[place].clone()
                heads = slice(None) if self.heads is None else self.heads
                if value.ndim == 4:
                    value[:, heads, self.token] = 0
                else:
                    value[heads, self.token] = 0
                args = (*args[:place], value, *args[place + 1 :])
            self.calls += 1
        return func(*args, **kwargs or {})


def layers_of(model: nn.Module) -> nn.ModuleList:
    return next(part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == 2)


def outputs(model: nn.Module, ids: Sequence[int], zero: ZeroValue | None = None) -> list[Tensor]:
    """What each layer returns."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found.append((output[0] if isinstance(output, tuple) else output)[0])

    handles = [layer.register_forward_hook(keep) for layer in layers_of(model)]
    with torch.no_grad():
        if zero is None:
            model(torch.tensor([ids]), use_cache=False)
        else:
            with zero:
                model(torch.tensor([ids]), use_cache=False)
            assert zero.calls == 2
    for handle in handles:
        handle.remove()
    return found


def shares(model: nn.Module, *, metric: str = "cosine", heads: Sequence[int] | None = None) -> Tensor:
    """Context mixing of each layer, [layers, L, L], one token, position and layer after the other."""
    model = copy.deepcopy(model)
    ids = [*tiny.tokenizer()(WORDS)["input_ids"], *tiny.tokenizer()(TARGET)["input_ids"]][:-1]
    plain = outputs(model, ids)
    found = torch.zeros(2, len(ids), len(ids), dtype=torch.float64)
    for layer in range(2):
        for token in range(len(ids)):
            changed = outputs(model, ids, ZeroValue(layer, token, heads))[layer]
            for position in range(token, len(ids)):
                before, after = plain[layer][position], changed[position]
                cosine = 1 - (before @ after) / (before.norm() * after.norm())
                found[layer, position, token] = cosine if metric == "cosine" else (after - before).norm()
    return found / found.sum(-1, keepdim=True)


def before_target(mixing: Tensor) -> np.ndarray:
    """The rows before each target token, for the prompt's tokens."""
    count = len(WORDS)
    return mixing[..., count - 1 :, :count].numpy()


FUSED = [family for family in tiny.FAMILIES if family not in ("mamba", "gemma2")]


@pytest.mark.parametrize("name", [*FUSED, *VARIANTS, "mpt", "bigcode"])
def test_values_by_hand(name: str) -> None:
    """Against zeroing inside the attention operation, in float64; whatever projects the values."""
    model = model_of(name)
    expected = before_target(shares(model))
    with explain(model) as explainer:
        result = explainer.attribute(PROMPT, TARGET, **ZEROING)
    # Some families compute norms and the softmax in fp32, whatever their weights are.
    np.testing.assert_allclose(result.extras["module_token_values"], expected, atol=2e-5)
    np.testing.assert_allclose(result.token_values, expected.mean(0), atol=2e-5)
    np.testing.assert_allclose(result.values, expected.mean((0, 1)), atol=2e-5)
    np.testing.assert_allclose(result.extras["module_values"], expected.mean(1), atol=2e-5)
    assert (result.estimand, result.unit, result.signed) == ("context mixing", "share", False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"metric": "euclidean"}, lambda model: shares(model, metric="euclidean").mean(0)),
        ({"layers": -1}, lambda model: shares(model)[1]),
        ({"aggregate_layers": "max"}, lambda model: shares(model).amax(0)),
        ({"aggregate_layers": "rollout"}, lambda model: shares(model)[1] @ shares(model)[0]),
        ({"heads": [1]}, lambda model: shares(model, heads=[1]).mean(0)),
        ({"heads": {1: 0}}, lambda model: shares(model, heads=[0])[1]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_options_by_hand(llama: ap.Explainer, options: dict[str, Any], expected: Any) -> None:
    """Heads are those of values, each of which serves two query heads of this model."""
    result = llama.attribute(PROMPT, TARGET, **ZEROING, **options)
    np.testing.assert_allclose(result.token_values, before_target(expected(tiny.model())), atol=2e-5)


@pytest.mark.parametrize(("family", "head"), [("gpt2", 1), ("gpt_neox", 1), ("phi3", 1), ("falcon", 0)])
def test_heads_of_fused_projections(family: str, head: int) -> None:
    model = tiny.model(family)
    with explain(model) as explainer:
        result = explainer.attribute(PROMPT, TARGET, **ZEROING, heads=[head])
    np.testing.assert_allclose(result.token_values, before_target(shares(model, heads=[head]).mean(0)), atol=2e-5)


def test_features_are_sums_over_their_tokens(llama: ap.Explainer) -> None:
    by_token = llama.attribute(PROMPT, TARGET, **ZEROING)
    by_word = llama.attribute(WORDS, TARGET, **ZEROING)
    tokens = by_token.values
    np.testing.assert_allclose(by_word.values, [tokens[:3].sum(), tokens[4:].sum()])
    assert by_word.extras["first_token_share"] == pytest.approx(tokens[0])
    assert llama.attribute(WORDS, TARGET, **ZEROING, normalize="features").values.sum() == pytest.approx(1)


def test_a_contrast_changes_nothing(llama: ap.Explainer) -> None:
    plain = llama.attribute(PROMPT, TARGET, **ZEROING)
    other = llama.attribute(PROMPT, TARGET, contrast=" longer than it", target_fn="contrast_log_prob_diff", **ZEROING)
    np.testing.assert_allclose(plain.token_values, other.token_values, atol=1e-12)
    assert any("nothing about a contrast" in note for note in other.provenance.notes)


@pytest.mark.parametrize("family", tiny.SEQ2SEQ_FAMILIES)
@pytest.mark.parametrize("kind", ["cross", "encoder"])
def test_encoder_decoder_models_by_hand(family: str, kind: str) -> None:
    """Zeroing inside the attention operation: two layers of the encoder, then self and cross attention by turns."""
    model = copy.deepcopy(tiny.model(family))
    half = model.get_encoder() if kind == "encoder" else model.get_decoder()
    with explain(model) as explainer:
        result = explainer.attribute(PROMPT, TARGET, **ZEROING, which=kind)
        start = explainer.session._start.ids  # type: ignore[attr-defined]
        tokenizer = explainer.session.tokenizer
        prompt = tokenizer(WORDS)["input_ids"]
        target = tokenizer(TARGET)["input_ids"]

    def states(zero: ZeroValue | None) -> list[Tensor]:
        found: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            found.append((output[0] if isinstance(output, tuple) else output)[0])

        handles = [layer.register_forward_hook(keep) for layer in layers_of(half)]
        read = torch.tensor([[*start, *target[: len(result.target_tokens) - 1]]])
        with torch.no_grad(), zero or nullcontext():
            model(torch.tensor([prompt]), decoder_input_ids=read, use_cache=False)
        for handle in handles:
            handle.remove()
        return found

    plain = states(None)
    mixing = torch.zeros(2, len(plain[0]), len(prompt), dtype=torch.float64)
    for layer in range(2):
        for token in range(len(prompt)):
            changed = states(ZeroValue(layer if kind == "encoder" else 2 + 2 * layer + 1, token))[layer]
            mixing[layer, :, token] = 1 - torch.cosine_similarity(plain[layer], changed, dim=-1)
    mixing /= mixing.sum(-1, keepdim=True)
    count = len(result.target_tokens)
    rows = mixing.mean(1, keepdim=True).expand(-1, count, -1) if kind == "encoder" else mixing[:, -count:]
    np.testing.assert_allclose(result.token_values, rows.mean(0)[:, : len(result.features)].numpy(), atol=2e-5)


# Cost


def test_one_forward_pass_per_token_whatever_the_number_of_layers(llama: ap.Explainer) -> None:
    result = llama.attribute(PROMPT, TARGET, **ZEROING)
    tokens = len(WORDS) + len(TARGET) - 1
    assert result.provenance.evaluations == tokens + PROOF
    assert result.provenance.forwarded_tokens == (tokens + PROOF) * tokens
    assert llama.estimate(PROMPT, TARGET, **ZEROING).evaluations == tokens + PROOF
    with pytest.raises(ap.BudgetError, match=f"takes {tokens + PROOF} evaluations, and the budget is {tokens}"):
        llama.attribute(PROMPT, TARGET, **ZEROING, budget=tokens)
    assert llama.attribute(PROMPT, TARGET, **ZEROING, budget=tokens + PROOF).values.any()


def test_small_batches_give_the_same_values() -> None:
    """One row at a time, where memory allows no more."""
    with ap.Explainer((tiny.model(), tiny.tokenizer()), memory_budget=1) as narrow, explain(tiny.model()) as wide:
        one, many = (explainer.attribute(PROMPT, TARGET, **ZEROING) for explainer in (narrow, wide))
    np.testing.assert_allclose(one.token_values, many.token_values, atol=1e-7)


# Where values are


def renamed(model: tf.PreTrainedModel, old: str, new: str) -> tf.PreTrainedModel:
    """A model whose modules call a projection by another name."""
    for module in model.modules():
        if old in module._modules:
            module.add_module(new, module._modules[old])
            kind = type(module)
            module.__class__ = type(kind.__name__, (kind,), {old: property(lambda self: self._modules[new])})
            del module._modules[old]
    return model


def test_unknown_names_are_refused_unless_the_user_names_them() -> None:
    model = renamed(copy.deepcopy(tiny.model("gpt2")), "c_attn", "mixer")
    with explain(model) as explainer, explain(tiny.model("gpt2")) as known:
        with pytest.raises(ap.CapabilityError, match="No module .*v_proj.*query_key_value.*value_modules="):
            explainer.attribute(PROMPT, TARGET, **ZEROING)
        named = explainer.attribute(PROMPT, TARGET, **ZEROING, value_modules="transformer.h.*.attn.mixer")
        np.testing.assert_allclose(named.values, known.attribute(PROMPT, TARGET, **ZEROING).values, atol=1e-12)


@pytest.mark.parametrize("wrong", ["k_proj", "q_proj", "o_proj"])
def test_modules_that_are_not_values_are_refused(llama: ap.Explainer, wrong: str) -> None:
    with pytest.raises(ap.CapabilityError, match=f"'model.layers.0.self_attn.{wrong}' does not seem to return"):
        llama.attribute(PROMPT, TARGET, **ZEROING, value_modules=f"model.layers.*.self_attn.{wrong}")


def test_a_layout_that_is_not_the_models_is_refused() -> None:
    """CodeGen keeps queries, values and keys in four parts, one for each of the devices it was trained on."""
    config = tf.CodeGenConfig(
        vocab_size=tiny.VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=4, bos_token_id=256,
        eos_token_id=257,
    )  # fmt: skip
    model = tf.AutoModelForCausalLM.from_config(config).double().eval()
    with (
        explain(model) as explainer,
        pytest.raises(ap.CapabilityError, match="does not seem to return"),
    ):
        explainer.attribute(PROMPT, TARGET, **ZEROING)


def test_values_that_reach_another_layer_are_refused() -> None:
    """Zeroes of all layers at once would then not be those of each layer alone."""
    model = copy.deepcopy(tiny.model())
    first, second = (layer.self_attn.o_proj for layer in model.model.layers)
    seen: list[Tensor] = []
    first.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    second.register_forward_pre_hook(lambda module, args: (args[0] + 0.5 * seen.pop(),))
    with explain(model) as explainer:
        with pytest.raises(ap.CapabilityError, match="'model.layers.1.self_attn.v_proj' does not seem to return"):
            explainer.attribute(PROMPT, TARGET, **ZEROING)
        assert explainer.attribute(PROMPT, TARGET, **ZEROING, layers=0).values.any()


def test_two_projections_in_a_layer_need_a_choice(llama: ap.Explainer) -> None:
    with pytest.raises(ap.InputError, match="'model.layers.0' has several value projections"):
        llama.attribute(PROMPT, TARGET, **ZEROING, value_modules="model.layers.*.self_attn.[kv]_proj")
    with pytest.raises(ap.InputError, match="'lm_head' is in no numbered layer"):
        llama.attribute(PROMPT, TARGET, **ZEROING, value_modules="lm_head")
    with pytest.raises(ap.InputError, match="no-such"):
        llama.attribute(PROMPT, TARGET, **ZEROING, value_modules="no-such")


def test_stacks_of_encoder_decoder_models() -> None:
    """Names alone; T5 and BART."""
    small = {"d_model": 16, "vocab_size": 50, "decoder_start_token_id": 0}
    t5 = tf.T5ForConditionalGeneration(tf.T5Config(**small, d_kv=8, d_ff=16, num_layers=2, num_heads=2))
    bart = tf.BartForConditionalGeneration(
        tf.BartConfig(
            **small, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
        )
    )  # fmt: skip
    ends = {"cross": ("EncDecAttention.v", "encoder_attn.v_proj"), "encoder": ("SelfAttention.v", "self_attn.v_proj")}
    ends["decoder"] = ends["encoder"]
    for model, place in ((t5, 0), (bart, 1)):
        modules = {name: module for name, module in model.named_modules() if name}
        for kind, names in ends.items():
            found = value_modules(modules, kind, None, joint=False)
            assert len(found) == 2
            half = "encoder" if kind == "encoder" else "decoder"
            assert all(f"{half}." in one.layer and one.name.endswith(names[place]) for one in found)
            assert all(one.output in modules for one in found)
    assert columns("separate", 16, modules[found[0].attention]).shape == (2, 8)


# No traces


def test_nothing_is_left_after_many_runs_and_errors(llama: ap.Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = tiny.model(), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        before = model(ids).logits

    def counts() -> tuple[int, int]:
        gc.collect()
        return len(hooks_of(model)), sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    llama.attribute("ab", "c", **ZEROING)
    expected = counts()
    for _ in range(100):
        llama.attribute("ab", "c", **ZEROING)
    assert counts() == expected
    for error in (RuntimeError("in the middle"), KeyboardInterrupt()):

        def fail(*args: Any, error: BaseException = error, **kwargs: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(model.model.layers[1].mlp, "forward", fail)
            with pytest.raises((ap.ApportionError, RuntimeError, KeyboardInterrupt)):
                llama.attribute(PROMPT, TARGET, **ZEROING)
        assert counts()[0] == expected[0]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, before)


def test_half_precision_says_so() -> None:
    model = copy.deepcopy(tiny.model()).to(torch.bfloat16)
    with explain(model) as explainer:
        result = explainer.attribute(PROMPT, TARGET, **ZEROING)
    np.testing.assert_allclose(result.values, before_target(shares(tiny.model())).mean((0, 1)), atol=0.03)
    assert any("computes in bfloat16" in note for note in result.provenance.notes)


@pytest.mark.parametrize("seed", [0, 4])
def test_rounding_in_half_precision_is_no_disproof(seed: int) -> None:
    """Values that are multiplied for the proof are rounded by more than the plain ones."""
    config = tiny.config("llama")
    config.num_hidden_layers = 24
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = tf.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).eval()
    with explain(model) as explainer:
        assert explainer.attribute(PROMPT, TARGET, **ZEROING).values.all()
        with pytest.raises(ap.CapabilityError, match="load the model with dtype='float32'"):
            explainer.attribute(PROMPT, TARGET, **ZEROING, value_modules="model.layers.*.self_attn.k_proj")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "dot"}, "No metric is called 'dot'. Available: cosine, euclidean"),
        ({"layers": 2}, "layers=2: this model has layers 0 to 1"),
        ({"heads": 2}, "heads=2: layer 0 has value heads 0 to 1"),
        ({"aggregate_layers": "median"}, "No aggregator of layers is called 'median'"),
        ({"which": "cross"}, "which='cross' is for encoder–decoder models"),
        ({"which": "decoder"}, "which='decoder' is for encoder–decoder models"),
        ({"value_modules": 3}, "value_modules=3 must be the name of a module"),
        ({"value_modules": "nope"}, "value_modules: 'nope' is not a module"),
    ],
)
def test_options_are_checked(llama: ap.Explainer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.ApportionError, match=message):
        llama.attribute(PROMPT, TARGET, **ZEROING, **options)

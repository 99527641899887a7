"""``apportion.captum`` beside Captum with the same seeds: scores, labels, types, and the state of the generator."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

import apportion as ap
import apportion.captum as ours
from apportion.captum import llm_gradient
from apportion.testing import tiny
from captum_doubles import SmallModel, WordTokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import captum.attr as theirs

TEMPLATE = "{name} in {city}, a {job}: {pronoun} hobby is"
VALUES = {"name": "Dave", "city": "Miami", "job": "lawyer", "pronoun": "His"}
BASELINES = {"name": "Sue", "city": "Rome", "job": "doctor", "pronoun": "Her"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "ablation": ("FeatureAblation", {}),
    "shapley": ("ShapleyValues", {}),
    "sampling": ("ShapleyValueSampling", {"n_samples": 5}),
    "lime": ("Lime", {"n_samples": 30}),
    "kernel": ("KernelShap", {"n_samples": 30}),
    "sampling, trials": ("ShapleyValueSampling", {"n_samples": 3, "num_trials": 2}),
    "lime, trials": ("Lime", {"n_samples": 20, "num_trials": 2}),
    "ablation, mask": ("FeatureAblation", {"feature_mask": torch.tensor([[0, 0, 1, 2]])}),
    "lime, mask": ("Lime", {"n_samples": 20, "feature_mask": torch.tensor([[1, 1, 2, 4]])}),
    "lime, baselines": ("Lime", {"n_samples": 20, "baselines": torch.tensor([[0, 0, 1, 0]])}),
    "kernel, mask": ("KernelShap", {"n_samples": 20, "feature_mask": torch.tensor([[0, 3, 3, 1]])}),
    "shapley, baselines": ("ShapleyValues", {"baselines": torch.tensor([[0, 1, 0, 0]])}),
}
INPUTS: dict[str, Callable[[ModuleType, Any], Any]] = {
    "template": lambda lib, tok: lib.TextTemplateInput(TEMPLATE, VALUES, BASELINES),
    "removed": lambda lib, tok: lib.TextTemplateInput(TEMPLATE, VALUES),
    "groups": lambda lib, tok: lib.TextTemplateInput(
        TEMPLATE, VALUES, BASELINES, mask={"name": 5, "city": 2, "job": 2, "pronoun": 5}
    ),
    "function": lambda lib, tok: lib.TextTemplateInput(
        lambda *words: "say " + " ".join(filter(None, words)), ["a1", "b2", "c3", "d4"]
    ),
    "tokens": lambda lib, tok: lib.TextTokenInput("seven", tok),
    "skipped": lambda lib, tok: lib.TextTokenInput("seven", tok, baselines=3, skip_tokens=[tok.encode("s")[0]]),
}


def run(lib: ModuleType, model: Any, tok: Any, method: str, kind: str, attr_target: str = "log_prob") -> Any:
    name, options = METHODS[method]
    torch.manual_seed(3)
    random.seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapper = lib.LLMAttribution(getattr(lib, name)(model), tok, attr_target=attr_target)
        found = wrapper.attribute(INPUTS[kind](lib, tok), target=" golf", forward_in_tokens=False, **options)
    return found, torch.get_rng_state()


def assert_alike(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    assert (found.input_tokens, found.output_tokens) == (expected.input_tokens, expected.output_tokens)
    for part in ("seq_attr", "token_attr"):
        one, other = getattr(found, part), getattr(expected, part)
        if other is None:
            assert one is None
        else:
            assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
            assert torch.allclose(one, other, atol=tolerance, rtol=0), (one - other).abs().max()


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("method", METHODS)
def test_perturbations(method: str, kind: str) -> None:
    if ("mask" in method or "baselines" in method) and kind not in ("template", "removed", "function"):
        pytest.skip("the mask is for four features")
    model, tok = tiny.model(), tiny.tokenizer()
    for attr_target in ("log_prob", "prob"):
        found, after = run(ours, model, tok, method, kind, attr_target)
        expected, then = run(theirs, model, tok, method, kind, attr_target)
        assert_alike(found, expected)
        assert torch.equal(after, then), "further draws would differ"


@pytest.fixture(scope="module")
def double(smollm2: ap.Explainer) -> tuple[Any, Any]:
    return copy.deepcopy(smollm2.session.model).double(), smollm2.session.tokenizer


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("method", "kind"), [("ablation", "template"), ("lime", "template"), ("ablation", "tokens")])
def test_perturbations_of_a_real_model(double: Any, method: str, kind: str) -> None:
    """In double precision: in single, rounding differs by 2e-5 nats from batch to batch."""
    assert_alike(run(ours, *double, method, kind)[0], run(theirs, *double, method, kind)[0])


@pytest.mark.parametrize("in_tokens", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("method", ["ablation", "shapley", "sampling", "lime", "kernel"])
def test_any_module(method: str, causal: bool, in_tokens: bool) -> None:
    """In fewer forwards, because each distinct prompt is scored once."""
    tok = WordTokenizer(["Dave", "Sue", "lives", "in", "Rome", "Miami", "likes", "golf", "and", "tennis"])
    model = SmallModel(len(tok.words), causal=causal)
    results, forwards = [], []
    for lib in (ours, theirs):
        torch.manual_seed(1)
        before = model.forwards
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrapper = lib.LLMAttribution(getattr(lib, METHODS[method][0])(model), tok)
            inp = lib.TextTemplateInput("{} lives in {} likes", ["Dave", "Rome"], ["Sue", "Miami"])
            options = {"forward_in_tokens": in_tokens, "use_cached_outputs": False, **METHODS[method][1]}
            results.append(wrapper.attribute(inp, target="golf and tennis", **options))
        forwards.append(model.forwards - before)
    assert_alike(*results)
    prompts = 3 if method == "ablation" else 4
    assert forwards[0] == prompts * (3 if in_tokens else 1) <= forwards[1]


LAYERS: dict[str, Callable[[Any], Any]] = {
    "embeddings": lambda model: model.model.embed_tokens,
    "queries": lambda model: model.model.layers[0].self_attn.q_proj,
    "mlp": lambda model: model.model.layers[1].mlp,
    "layer": lambda model: model.model.layers[0],
}
GRADIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "integrated": ("LayerIntegratedGradients", {}),
    "few steps": ("LayerIntegratedGradients", {"n_steps": 7, "internal_batch_size": 3}),
    "left": ("LayerIntegratedGradients", {"n_steps": 7, "method": "riemann_left"}),
    "input": ("LayerIntegratedGradients", {"n_steps": 7, "attribute_to_layer_input": True}),
    "activation": ("LayerGradientXActivation", {}),
    "activation at the input": ("LayerGradientXActivation", {"attribute_to_layer_input": True}),
}


@pytest.mark.parametrize("fast", [True, False], ids=["at once", "token by token"])
@pytest.mark.parametrize("multiplied", [True, False], ids=["multiplied", "gradients"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", GRADIENTS)
def test_gradients(method: str, layer: str, multiplied: bool, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if layer == "embeddings" and "attribute_to_layer_input" in GRADIENTS[method][1]:
        pytest.skip("token ids have no gradient")
    if not fast:
        monkeypatch.setattr(llm_gradient, "token_scores", lambda *_: None)
    model, tok = tiny.model(), tiny.tokenizer()
    name, options = GRADIENTS[method]
    results = []
    for lib in (ours, theirs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen = getattr(lib, name)(model, LAYERS[layer](model), multiply_by_inputs=multiplied)
            inp = lib.TextTokenInput("seven", tok, baselines=3, skip_tokens=[tok.encode("s")[0]])
            results.append(lib.LLMGradientAttribution(chosen, tok).attribute(inp, target=" go", **options))
    assert_alike(*results, tolerance=1e-4 * float(results[1].token_attr.abs().max()) + 1e-12)


def test_several_layers_are_scored_as_by_captums_method() -> None:
    """Captum's method takes a list, and only its wrapper for language models does not."""
    model, tok = tiny.model(), tiny.tokenizer()
    layers = [LAYERS["embeddings"](model), LAYERS["queries"](model)]
    found = ours.LLMGradientAttribution(ours.LayerIntegratedGradients(model, layers), tok).attribute(
        ours.TextTokenInput("seven", tok), target="g"
    )
    wrapper = theirs.LLMGradientAttribution(theirs.LayerIntegratedGradients(model, layers), tok)
    inp, target = theirs.TextTokenInput("seven", tok), torch.tensor(tok.encode("g"))
    expected = wrapper.attr_method.attribute(inp.to_tensor(), additional_forward_args=(inp, target, 0))
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.seq_attr, other[0].sum(-1), atol=1e-7)


@pytest.mark.parametrize("kind", ["model input", "input"])
def test_overrides_count_for_gradients(kind: str) -> None:
    model, tok = tiny.model(), tiny.tokenizer()
    results = []
    for lib in (ours, theirs):

        class Shifted(lib.LLMGradientAttribution):
            def _format_model_input(self, model_input: Any) -> Any:
                found = super()._format_model_input(model_input)
                return {**found, "input_ids": found["input_ids"] + 1}

        class Other(lib.TextTokenInput):
            def to_model_input(self, perturbed_tensor: torch.Tensor | None = None) -> torch.Tensor:
                return super().to_model_input(perturbed_tensor) + 1

        wrapper = Shifted if kind == "model input" else lib.LLMGradientAttribution
        inp = (Other if kind == "input" else lib.TextTokenInput)("abc", tok, baselines=5)
        method = lib.LayerGradientXActivation(model, LAYERS["layer"](model))
        results.append(wrapper(method, tok).attribute(inp, target=" go"))
    assert_alike(*results, tolerance=1e-7)


def test_further_arguments_of_the_model_count() -> None:
    """Token ids are then not all that it reads, and it is called as Captum calls it."""
    model, tok = tiny.model(), tiny.tokenizer()
    results = []
    for lib in (ours, theirs):

        class Placed(lib.LLMAttribution):
            def _format_model_input(self, model_input: Any) -> Any:
                return {**super()._format_model_input(model_input), "logits_to_keep": 0, "output_attentions": False}

        inp = lib.TextTemplateInput(TEMPLATE, VALUES, BASELINES)
        wrapper = Placed(lib.FeatureAblation(model), tok)
        results.append(wrapper.attribute(inp, target=" golf", forward_in_tokens=False))
    assert_alike(*results)


def test_an_input_of_another_length_is_refused() -> None:
    class Longer(ours.TextTokenInput):
        def to_model_input(self, perturbed_tensor: torch.Tensor | None = None) -> torch.Tensor:
            found = super().to_model_input(perturbed_tensor)
            return torch.cat([found[:, :1], found], dim=1)

    model, tok = tiny.model(), tiny.tokenizer()
    wrapper = ours.LLMGradientAttribution(ours.LayerGradientXActivation(model, model.model.embed_tokens), tok)
    with pytest.raises(AssertionError, match="the layer has 4 positions, and the input 3 tokens"):
        wrapper.attribute(Longer("abc", tok), target=" go")


def test_layers_that_cut_others_off_are_refused() -> None:
    model, tok = tiny.model(), tiny.tokenizer()
    layers = [model.model.layers[0], model.model.embed_tokens]
    wrapper = ours.LLMGradientAttribution(ours.LayerIntegratedGradients(model, layers), tok)
    with pytest.raises(AssertionError, match=r"does not depend on the layers \[1\] of the list"):
        wrapper.attribute(ours.TextTokenInput("abc", tok, baselines=5), target="g", n_steps=3)


@pytest.mark.parametrize("where", ["lm_head", "model"])
def test_backward_hooks_see_gradients(where: str) -> None:
    model, tok = copy.deepcopy(tiny.model()), tiny.tokenizer()
    module = model.lm_head if where == "lm_head" else model.model.layers[1]
    handle = module.register_full_backward_hook(lambda module, read, wrote: (read[0] * 3, *read[1:]))
    results = []
    for lib in (ours, theirs):
        method = lib.LayerGradientXActivation(model, model.model.embed_tokens)
        results.append(lib.LLMGradientAttribution(method, tok).attribute(lib.TextTokenInput("abc", tok), target="go"))
    handle.remove()
    assert_alike(*results, tolerance=1e-6 * float(results[1].token_attr.abs().max()))


def test_the_head_may_be_a_layer() -> None:
    model, tok = tiny.model(), tiny.tokenizer()
    results = [
        lib.LLMGradientAttribution(lib.LayerGradientXActivation(model, model.lm_head), tok).attribute(
            lib.TextTokenInput("abc", tok), target="g"
        )
        for lib in (ours, theirs)
    ]
    assert_alike(*results, tolerance=1e-9)


def test_an_error_of_a_template_is_its_own() -> None:
    def template(name: str) -> str:
        return name + " likes"[: 1 // len(name)]

    wrapper = ours.LLMAttribution(ours.FeatureAblation(tiny.model()), tiny.tokenizer())
    with pytest.raises(ZeroDivisionError):
        wrapper.attribute(ours.TextTemplateInput(template, ["Dave"]), target="g")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps=0 must be"),
        ({"n_steps": 2.5}, "n_steps=2.5 must be"),
        ({"method": "foo"}, "Given method 'foo' is not one of"),
        ({"internal_batch_size": -1}, "internal_batch_size=-1 must be"),
    ],
)
def test_mistakes_in_gradients_are_named_before_the_model_runs(options: dict[str, Any], message: str) -> None:
    model, runs = copy.deepcopy(tiny.model()), []
    model.model.layers[0].register_forward_hook(lambda *_: runs.append(1))
    wrapper = ours.LLMGradientAttribution(
        ours.LayerIntegratedGradients(model, model.model.embed_tokens), tiny.tokenizer()
    )
    with pytest.raises(AssertionError, match=message):
        wrapper.attribute(ours.TextTokenInput("abc", tiny.tokenizer()), target="g", **options)
    assert not runs


def test_gradient_shap_at_a_layer_by_hand() -> None:
    """With the same draws: the gradient at each point, times the difference from its baseline, averaged."""
    tok = WordTokenizer(["Dave", "Sue", "likes", "golf", "and"])
    model, inp = SmallModel(len(tok.words)), ours.TextTokenInput("Dave likes", tok, baselines="Sue")
    baselines = torch.tensor([[0, 0, 0], [1, 0, 1], [1, 1, 0]])
    target = torch.tensor(tok.encode("golf and", add_special_tokens=False))
    wrapper = ours.LLMGradientAttribution(ours.LayerGradientShap(model, model.mix), tok)
    torch.manual_seed(2)
    found = wrapper.attribute(inp, target=target, baselines=baselines, n_samples=4)
    torch.manual_seed(2)
    for number in range(len(target)):
        shares, chosen = torch.rand(4), torch.randint(3, (4,))
        expected = torch.zeros(3)
        for share, row in zip(shares, baselines[chosen], strict=True):
            read = [
                torch.cat([inp.to_model_input(one[None])[0], target[:number]]) for one in (torch.ones_like(row), row)
            ]
            present, absent = (model.mix(model.embed(ids)).detach() for ids in read)
            point = (absent + share * (present - absent)).requires_grad_()
            states = torch.tanh(point)
            mixed = states.cumsum(0) / torch.arange(1, len(states) + 1)[:, None]
            score = model.head(mixed * 4)[-1].log_softmax(-1)[target[number]]
            (slope,) = torch.autograd.grad(score, point)
            expected += (slope * (present - absent)).sum(-1)[:3] / 4
        assert torch.allclose(found.token_attr[number], expected, atol=1e-6)


def test_what_runs_in_batches_is_counted() -> None:
    """Seven features take 2⁷ evaluations, not 7 · 7! forwards; trials of the same input none at all."""
    model, tok = tiny.model(), tiny.tokenizer()
    wrapper = ours.LLMAttribution(ours.ShapleyValues(model), tok)
    seen: list[str] = []
    values = [f"{number}" for number in range(7)]
    for trials in (1, 3):
        seen.clear()
        wrapper.attribute(
            ours.TextTemplateInput("{}" * 7, values, ["x"] * 7),
            target="g",
            num_trials=trials,
            _inspect_forward=lambda prompt, response, probs: seen.append(prompt),
        )
        assert len(seen) == len(set(seen)) == 2**7


def test_methods_that_are_not_wrapped_say_what_to_do() -> None:
    model = tiny.model()
    with pytest.raises(AssertionError, match="wrap it as LLMAttribution"):
        ours.FeatureAblation(model).attribute(torch.ones(1, 2))
    with pytest.raises(AssertionError, match="wrap it as LLMGradientAttribution"):
        ours.LayerIntegratedGradients(model, model.model.embed_tokens).attribute(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_trials": 0}, "num_trials=0 must be a whole number of at least 1"),
        ({"perturbations_per_eval": 0}, "perturbations_per_eval=0 must be"),
        ({"feature_mask": torch.tensor([[0, 1]])}, "the feature mask must be a tensor of 4 numbers"),
        ({"feature_mask": torch.tensor([[0.0, 1, 2, 3]])}, "whole numbers from 0"),
        ({"baselines": torch.zeros(1, 3)}, r"baselines must be a number, or a tensor of shape \[1, 4\]"),
        ({"typo": 1}, "FeatureAblation has no such arguments: typo"),
    ],
)
def test_mistakes_are_named_before_the_model_runs(options: dict[str, Any], message: str) -> None:
    wrapper = ours.LLMAttribution(ours.FeatureAblation(tiny.model()), tiny.tokenizer())
    with pytest.raises(ap.InputError, match=message):
        wrapper.attribute(ours.TextTemplateInput(TEMPLATE, VALUES, BASELINES), target="g", **options)


def test_an_encoder_decoder_is_scored_by_its_decoder() -> None:
    """Captum appends the target to the source."""
    model, tok = tiny.model("t5"), tiny.tokenizer()
    explainer = ap.Explainer((model, tok), progress=False)
    expected = explainer.attribute(ap.Text("abc", by="tokens", baseline=0), tuple(tok.encode("go")), method="ablation")
    found = ours.LLMAttribution(ours.FeatureAblation(model), tok).attribute(
        ours.TextTokenInput("abc", tok), target="go"
    )
    count = len(expected.values)
    assert torch.allclose(found.token_attr[:, :count], torch.tensor(expected.token_values).float(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_half_precision_are_single(dtype: torch.dtype) -> None:
    model, tok = tiny.model("llama", dtype), tiny.tokenizer()
    found = ours.LLMAttribution(ours.FeatureAblation(model), tok).attribute(
        ours.TextTemplateInput(TEMPLATE, VALUES, BASELINES), target=" golf"
    )
    assert found.token_attr.dtype == torch.float32
    exact, _ = run(ours, tiny.model("llama", torch.float64), tok, "ablation", "template")
    assert float((found.token_attr - exact.token_attr).abs().max()) < 0.05


def test_a_model_in_training_is_left_so() -> None:
    model, tok = tiny.model().train(), tiny.tokenizer()
    try:
        run(ours, model, tok, "ablation", "template")
        assert model.training
    finally:
        model.eval()


def test_embeddings_are_read_in_batches() -> None:
    """A hook on the embeddings sees a batch, as in a forward pass."""
    model, tok = copy.deepcopy(tiny.model()), tiny.tokenizer()
    model.model.embed_tokens.register_forward_hook(
        lambda module, read, out: out * (1 + out.shape[0] * out.shape[2] / 99)
    )
    results = []
    for lib in (ours, theirs):
        method = lib.LayerGradientXActivation(model, model.model.layers[0])
        results.append(lib.LLMGradientAttribution(method, tok).attribute(lib.TextTokenInput("abc", tok), target="g"))
    assert_alike(*results, tolerance=1e-9)

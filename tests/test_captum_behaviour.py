"""What Captum documents of its classes for language models, one test each, run against ``apportion.captum`` and Captum.

``CAPTUM_FAILS`` lists what Captum 0.9 itself does not do with the pinned versions; these tests must fail there.
"""

from __future__ import annotations

import importlib
import random
import sys
import warnings
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from apportion.testing import tiny
from captum_doubles import SmallModel, WordTokenizer

WORDS = ["Dave", "Sue", "lives", "in", "Rome", "Miami", "and", "likes", "golf", "tennis", "a", "lawyer", "doctor"]
TEMPLATE = "{} lives in {} and likes"
NAMED = "{name} lives in {city} and likes"
VALUES, BASELINES = {"name": "Dave", "city": "Rome"}, {"name": "Sue", "city": "Miami"}
PERTURBATION = ("FeatureAblation", "ShapleyValues", "ShapleyValueSampling", "Lime", "KernelShap")
PER_TOKEN = PERTURBATION[:3]
GRADIENT = ("LayerIntegratedGradients", "LayerGradientXActivation")

CAPTUM_FAILS = frozenset(
    {
        "test_the_default_path_is_that_of_decoding_without_a_cache",
        "test_perturbations_per_eval_changes_nothing",
        "test_a_value_without_effect_gets_nothing_with_product_baselines",
        "test_skip_tokens_leaves_tokens_out_of_the_target",
        "test_several_layers_give_a_result_each",
        "test_a_convergence_delta_is_returned",
        "test_layer_gradient_shap_is_its_definition",
        "test_tokenizers_without_offsets_work",
        "test_an_empty_target_is_refused",
        "test_inputs_of_ones_own_are_supported",
        "test_inspect_forward_sees_every_input_in_one_pass_too",
    }
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lib" in metafunc.fixturenames:
        fails = metafunc.function.__name__ in CAPTUM_FAILS
        marks = [pytest.mark.xfail(strict=True, reason="Captum 0.9 does not")] if fails else []
        metafunc.parametrize("lib", ["apportion.captum", pytest.param("captum.attr", marks=marks)], indirect=True)


@pytest.fixture
def lib(request: pytest.FixtureRequest) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(request.param)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    random.seed(0)


@pytest.fixture(scope="module")
def tok() -> WordTokenizer:
    return WordTokenizer(WORDS)


@pytest.fixture
def model(tok: WordTokenizer) -> SmallModel:
    return SmallModel(len(tok.words))


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny.model(), tiny.tokenizer()


def attributed(lib: ModuleType, model: Any, tok: Any, method: str = "FeatureAblation", **arguments: Any) -> Any:
    """A result for the named template, by default without a cache and in one pass."""
    inp = arguments.pop("inp", None) or lib.TextTemplateInput(NAMED, VALUES, BASELINES)
    options = {"target": "golf and tennis", "forward_in_tokens": False, **arguments}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lib.LLMAttribution(getattr(lib, method)(model), tok).attribute(inp, **options)


def log_probs(model: Any, tok: Any, text: str, target: str) -> Tensor:
    """By hand: the log-probability of each target token, each from a forward of its own."""
    ids, found = tok.encode(text), []
    for token in tok.encode(target, add_special_tokens=False):
        logits = model(torch.tensor([ids])).logits[0, -1]
        found.append(logits.log_softmax(-1)[token])
        ids = [*ids, token]
    return torch.stack(found).detach()


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_a_template_of_a_list(lib: ModuleType) -> None:
    inp = lib.TextTemplateInput(TEMPLATE, ["Dave", "Rome"], ["Sue", "Miami"])
    assert inp.to_tensor().tolist() == [[1.0, 1.0]]
    assert inp.to_model_input() == "Dave lives in Rome and likes"
    assert inp.to_model_input(torch.tensor([[0.0, 1.0]])) == "Sue lives in Rome and likes"
    assert (inp.values, inp.n_features, inp.n_itp_features) == (["Dave", "Rome"], 2, 2)


def test_a_template_of_a_dict(lib: ModuleType) -> None:
    inp = lib.TextTemplateInput(NAMED, VALUES, BASELINES)
    assert inp.to_model_input(torch.tensor([[1.0, 0.0]])) == "Dave lives in Miami and likes"
    assert inp.dict_keys == ["name", "city"] and inp.values == ["Dave", "Rome"]


def test_a_template_may_be_a_function(lib: ModuleType) -> None:
    inp = lib.TextTemplateInput(lambda *words: " ".join(word for word in words if word), ["Dave", "likes", "golf"])
    assert inp.to_model_input(torch.tensor([[1.0, 0.0, 1.0]])) == "Dave golf"


def test_absent_values_are_empty_by_default(lib: ModuleType) -> None:
    assert lib.TextTemplateInput(TEMPLATE, ["a", "b"]).to_model_input(torch.zeros(1, 2)) == " lives in  and likes"


def test_baselines_may_be_a_function(lib: ModuleType) -> None:
    inp = lib.TextTemplateInput(NAMED, VALUES, lambda: BASELINES)
    assert inp.to_model_input(torch.zeros(1, 2)) == "Sue lives in Miami and likes"


@pytest.mark.parametrize("mask", [[3, 7, 3], {"a": 3, "b": 7, "c": 3}])
def test_a_mask_groups_values(lib: ModuleType, mask: Any) -> None:
    values = ["x", "y", "z"] if isinstance(mask, list) else {"a": "x", "b": "y", "c": "z"}
    inp = lib.TextTemplateInput("{} {} {}" if isinstance(mask, list) else "{a} {b} {c}", values, mask=mask)
    assert inp.n_itp_features == 2 and inp.to_tensor().shape == (1, 2)
    assert inp.to_model_input(torch.tensor([[0.0, 1.0]])) in (" y ", "x  z")
    (spread,) = inp.format_attr(torch.tensor([[1.0, 2.0]])).tolist()
    assert spread[0] == spread[2] != spread[1]


def test_values_must_be_a_list_or_dict(lib: ModuleType) -> None:
    with pytest.raises(AssertionError, match="values must be either a list or a dict"):
        lib.TextTemplateInput("{}", "Dave")


def test_baselines_must_be_like_the_values(lib: ModuleType) -> None:
    with pytest.raises(AssertionError, match="if values is a dict"):
        lib.TextTemplateInput(NAMED, VALUES, ["Sue", "Miami"])
    with pytest.raises(AssertionError, match="if values is a list"):
        lib.TextTemplateInput(TEMPLATE, ["Dave", "Rome"], BASELINES)


def test_drawn_baselines_must_be_like_the_values(lib: ModuleType) -> None:
    with pytest.raises(AssertionError, match="if values is a dict"):
        lib.TextTemplateInput(NAMED, VALUES, lambda: ["Sue", "Miami"]).to_model_input(torch.zeros(1, 2))


def test_a_mask_must_be_like_the_values(lib: ModuleType) -> None:
    with pytest.raises(AssertionError, match="if values is"):
        lib.TextTemplateInput(NAMED, VALUES, BASELINES, mask=[0, 1])


def test_a_template_must_be_a_text_or_a_function(lib: ModuleType) -> None:
    with pytest.raises(AssertionError, match="template must be either a string or a callable"):
        lib.TextTemplateInput(7, ["a"])


def test_tokens_of_a_text(lib: ModuleType, tok: WordTokenizer) -> None:
    inp = lib.TextTokenInput("Dave likes golf", tok)
    assert inp.values == ["<s>", "Dave", "likes", "golf"] and inp.n_itp_features == 4
    assert inp.to_tensor().tolist() == [[1, 1, 1, 1]]
    assert torch.equal(inp.to_model_input(), tok.encode("Dave likes golf", return_tensors="pt"))
    assert inp.to_model_input(torch.tensor([[1, 0, 1, 1]]))[0].tolist() == [1, 0, *tok.encode("likes golf")[1:]]


@pytest.mark.parametrize("baseline", ["Sue", 3])
def test_the_baseline_of_tokens(lib: ModuleType, tok: WordTokenizer, baseline: Any) -> None:
    inp = lib.TextTokenInput("Dave likes", tok, baselines=baseline)
    assert inp.baselines == 3 == tok.numbers["Sue"]
    assert inp.to_model_input(torch.zeros(1, 3)).tolist() == [[3, 3, 3]]


@pytest.mark.parametrize("skip", [["<s>"], [1]])
def test_skipped_tokens_stay(lib: ModuleType, tok: WordTokenizer, skip: Any) -> None:
    inp = lib.TextTokenInput("Dave likes", tok, skip_tokens=skip)
    assert inp.values == ["Dave", "likes"] and inp.to_tensor().shape == (1, 2)
    assert inp.to_model_input(torch.zeros(1, 2)).tolist() == [[1, 0, 0]]


def test_tokens_of_a_batch(lib: ModuleType, tok: WordTokenizer) -> None:
    inp = lib.TextTokenInput("Dave likes", tok, skip_tokens=["<s>"])
    assert inp.to_model_input(torch.tensor([[1, 0], [0, 1]])).shape == (2, 3)


# --- product baselines ----------------------------------------------------------------------------------------------


def test_product_baselines_of_lists(lib: ModuleType) -> None:
    product = lib.ProductBaselines([["a", "b"], ["c"]])
    assert {tuple(product()) for _ in range(40)} == {("a", "c"), ("b", "c")}


def test_product_baselines_of_a_dict(lib: ModuleType) -> None:
    product = lib.ProductBaselines({("name", "pronoun"): [("Sue", "her"), ("Al", "his")], "job": ["doctor"]})
    drawn = [product.sample() for _ in range(40)]
    assert {(one["name"], one["pronoun"]) for one in drawn} == {("Sue", "her"), ("Al", "his")}
    assert all(one["job"] == "doctor" for one in drawn)


def test_product_baselines_draw_by_pythons_random(lib: ModuleType) -> None:
    product = lib.ProductBaselines([list(range(1000))])
    random.seed(5)
    (drawn,) = product()
    random.seed(5)
    assert drawn == random.choice(range(1000))


# --- attribution by perturbation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PERTURBATION)
def test_shapes_and_types(lib: ModuleType, model: SmallModel, tok: WordTokenizer, method: str) -> None:
    found = attributed(lib, model, tok, method)
    assert found.seq_attr.shape == (2,) and found.seq_attr.dtype == torch.float32
    assert found.seq_attr.device == model.device
    if method in PER_TOKEN:
        assert found.token_attr.shape == (3, 2) and found.token_attr.dtype == torch.float32
    assert found.input_tokens == ["Dave", "Rome"] and found.output_tokens == ["golf", "and", "tennis"]
    assert found.seq_attr_dict == dict(zip(["Dave", "Rome"], found.seq_attr.tolist(), strict=True))


@pytest.mark.parametrize("method", ["Lime", "KernelShap"])
def test_regressions_give_no_scores_of_tokens(
    lib: ModuleType, model: SmallModel, tok: WordTokenizer, method: str
) -> None:
    assert attributed(lib, model, tok, method).token_attr is None


def test_scores_of_tokens_add_up(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    found = attributed(lib, model, tok, "ShapleyValues")
    assert torch.allclose(found.token_attr.sum(0), found.seq_attr, atol=1e-5)


@pytest.mark.parametrize("by_token", [True, False])
def test_ablation_is_its_definition(lib: ModuleType, model: SmallModel, tok: WordTokenizer, by_token: bool) -> None:
    found = attributed(lib, model, tok, forward_in_tokens=by_token, use_cached_outputs=False)
    full = log_probs(model, tok, "Dave lives in Rome and likes", "golf and tennis")
    lost = full - log_probs(model, tok, "Sue lives in Rome and likes", "golf and tennis")
    assert torch.allclose(found.token_attr[:, 0], lost, atol=1e-5)
    assert torch.allclose(found.seq_attr[0], lost.sum(), atol=1e-5)


def test_the_default_path_is_that_of_decoding_without_a_cache(lib: ModuleType, llama: Any) -> None:
    """Captum feeds the sequence again on top of its cache."""
    model, tok = llama
    default = attributed(lib, model, tok, target=" golf", forward_in_tokens=True)
    expected = attributed(lib, model, tok, target=" golf", forward_in_tokens=True, use_cached_outputs=False)
    assert torch.allclose(default.token_attr, expected.token_attr, atol=1e-5)


@pytest.mark.parametrize("by_token", [True, False])
def test_models_that_are_not_causal_differ_by_path(lib: ModuleType, tok: WordTokenizer, by_token: bool) -> None:
    model = SmallModel(len(tok.words), causal=False)
    found = attributed(lib, model, tok, forward_in_tokens=by_token, use_cached_outputs=False)

    def scores(name: str) -> Tensor:
        text = f"{name} lives in Rome and likes"
        if by_token:
            return log_probs(model, tok, text, "golf and tennis")
        prompt, target = tok.encode(text), tok.encode("golf and tennis", add_special_tokens=False)
        logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1].detach()
        return logits.log_softmax(-1)[torch.arange(3), torch.tensor(target)]

    assert torch.allclose(found.token_attr[:, 0], scores("Dave") - scores("Sue"), atol=1e-5)


def test_probabilities_are_exponentials(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    method = lib.FeatureAblation(model)
    found = lib.LLMAttribution(method, tok, attr_target="prob").attribute(
        lib.TextTemplateInput(NAMED, VALUES, BASELINES), target="golf and tennis", forward_in_tokens=False
    )
    full = log_probs(model, tok, "Dave lives in Rome and likes", "golf and tennis")
    other = log_probs(model, tok, "Sue lives in Rome and likes", "golf and tennis")
    assert torch.allclose(found.token_attr[:, 0], full.exp() - other.exp(), atol=1e-6)
    assert torch.allclose(found.seq_attr[0], full.sum().exp() - other.sum().exp(), atol=1e-6)


def test_attr_target_is_one_of_two(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    with pytest.raises(AssertionError, match="attr_target should be either 'log_prob' or 'prob'"):
        lib.LLMAttribution(lib.FeatureAblation(model), tok, attr_target="logit")


def test_other_methods_are_refused(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    with pytest.raises(AssertionError, match="LLMAttribution does not support"):
        lib.LLMAttribution(lib.LayerIntegratedGradients(model, model.embed), tok)


def test_other_inputs_are_refused(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    with pytest.raises(AssertionError, match="does not support input type"):
        lib.LLMAttribution(lib.FeatureAblation(model), tok).attribute("Dave likes", target="golf")


def test_a_target_may_be_ids(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    ids = torch.tensor(tok.encode("golf and tennis", add_special_tokens=False))
    assert torch.equal(attributed(lib, model, tok, target=ids).token_attr, attributed(lib, model, tok).token_attr)


def test_a_target_is_a_text_or_ids(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    with pytest.raises(TypeError, match="target must either be str or Tensor"):
        attributed(lib, model, tok, target=["golf"])


def test_an_empty_target_is_refused(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    with pytest.raises(AssertionError):
        attributed(lib, model, tok, target="")


def test_without_a_target_the_model_writes_25_tokens(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    assert len(attributed(lib, model, tok, target=None).output_tokens) == 25


def test_gen_args_are_passed_on(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    found = attributed(lib, model, tok, target=None, gen_args={"max_new_tokens": 2})
    assert len(found.output_tokens) == 2


def test_gen_args_and_a_target_are_refused(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    with pytest.raises(AssertionError, match="gen_args must be None when target is given"):
        attributed(lib, model, tok, gen_args={"max_new_tokens": 2})


def test_a_model_that_cannot_generate_needs_a_target(lib: ModuleType, tok: WordTokenizer) -> None:
    model = SmallModel(len(tok.words))
    model.generate = None
    with pytest.raises(AssertionError, match="does not have recognizable generate function"):
        attributed(lib, model, tok, target=None)


def test_a_method_stays_as_it_was(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    method = lib.FeatureAblation(model)
    wrapper = lib.LLMAttribution(method, tok)
    assert method.forward_func is model and wrapper.attr_method is not method
    assert wrapper.model is model and wrapper.tokenizer is tok and wrapper.device == model.device


def test_trials_are_averaged(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    def run(**options: Any) -> Tensor:
        inp = lib.TextTokenInput("Dave and Sue likes golf", tok)
        return attributed(lib, model, tok, "ShapleyValueSampling", inp=inp, n_samples=1, **options).token_attr

    torch.manual_seed(4)
    both = run(num_trials=2)
    torch.manual_seed(4)
    assert torch.allclose(both, (run() + run()) / 2, atol=1e-6)


def test_efficiency_holds_with_product_baselines(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    """The values of a trial add up to the change from one draw of the baselines, because they telescope."""
    product = lib.ProductBaselines({"name": ["Sue", "golf", "tennis", "a"], "city": ["Miami", "and", "lawyer"]})
    full = log_probs(model, tok, "Dave lives in Rome and likes", "golf and tennis").sum()
    empties = [
        log_probs(model, tok, f"{name} lives in {city} and likes", "golf and tennis").sum()
        for name in product.baseline_values[0]
        for city in product.baseline_values[1]
    ]
    for seed in range(5):
        random.seed(seed)
        found = attributed(lib, model, tok, "ShapleyValues", inp=lib.TextTemplateInput(NAMED, VALUES, product))
        assert min(abs(float(found.seq_attr.sum() - (full - empty))) for empty in empties) < 1e-5


def test_a_value_without_effect_gets_nothing_with_product_baselines(
    lib: ModuleType, model: SmallModel, tok: WordTokenizer
) -> None:
    """Captum draws baselines anew for every forward, so that the others' baselines change beside it."""
    product = lib.ProductBaselines([["Sue", "golf", "tennis", "a"], ["Miami"]])
    inp = lib.TextTemplateInput(lambda name, ignored: f"{name} likes", ["Dave", "Rome"], product)
    for method in ("FeatureAblation", "ShapleyValues"):
        found = attributed(lib, model, tok, method, inp=inp, num_trials=6)
        assert float(found.token_attr[:, 1].abs().max()) < 1e-6
        assert float(found.token_attr[:, 0].abs().max()) > 1e-3


def test_feature_mask_groups_features(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    inp = lib.TextTemplateInput("{} {} {} likes", ["Dave", "and", "Sue"], ["a", "a", "a"])
    found = attributed(lib, model, tok, inp=inp, feature_mask=torch.tensor([[0, 1, 0]]))
    grouped = lib.TextTemplateInput("{} {} {} likes", ["Dave", "and", "Sue"], ["a", "a", "a"], mask=[0, 1, 0])
    assert torch.allclose(found.seq_attr, attributed(lib, model, tok, inp=grouped).seq_attr, atol=1e-6)


@pytest.mark.parametrize("method", ["ShapleyValueSampling", "Lime", "KernelShap"])
def test_n_samples_counts_draws(lib: ModuleType, model: SmallModel, tok: WordTokenizer, method: str) -> None:
    found = [attributed(lib, model, tok, method, n_samples=count).seq_attr for count in (3, 60)]
    assert found[0].shape == found[1].shape == (2,)


@pytest.mark.parametrize("method", PERTURBATION)
def test_perturbations_per_eval_changes_nothing(
    lib: ModuleType, model: SmallModel, tok: WordTokenizer, method: str
) -> None:
    torch.manual_seed(0)
    one = attributed(lib, model, tok, method).seq_attr
    torch.manual_seed(0)
    many = attributed(lib, model, tok, method, perturbations_per_eval=4).seq_attr
    assert torch.allclose(one, many, atol=1e-6)


def test_show_progress_is_accepted(
    lib: ModuleType, model: SmallModel, tok: WordTokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = attributed(lib, model, tok).seq_attr
    assert torch.equal(attributed(lib, model, tok, show_progress=True).seq_attr, plain)


def test_the_global_seed_decides_the_draws(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        inp = lib.TextTokenInput("Dave and Sue likes golf", tok)
        found.append(attributed(lib, model, tok, "ShapleyValueSampling", inp=inp, n_samples=2).seq_attr)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_inspect_forward_sees_prompts_and_probabilities(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    seen: list[tuple[str, str, list[float]]] = []

    def inspect(prompt: str, response: str, probs: list[float]) -> None:
        seen.append((prompt, response, probs))

    attributed(lib, model, tok, _inspect_forward=inspect, forward_in_tokens=True, use_cached_outputs=False)
    assert {prompt for prompt, _, _ in seen} == {
        "<s> Dave lives in Rome and likes",
        "<s> Sue lives in Rome and likes",
        "<s> Dave lives in Miami and likes",
    }
    assert {response for _, response, _ in seen} == {"golf and tennis"}
    each = log_probs(model, tok, "Dave lives in Rome and likes", "golf and tennis")
    probs = next(probs for prompt, _, probs in seen if prompt.startswith("<s> Dave lives in Rome"))
    assert probs == pytest.approx([float(each.sum().exp()), *each.exp().tolist()], abs=1e-6)


def test_inspect_forward_sees_every_input_in_one_pass_too(
    lib: ModuleType, model: SmallModel, tok: WordTokenizer
) -> None:
    seen: list[str] = []
    attributed(lib, model, tok, _inspect_forward=lambda prompt, response, probs: seen.append(prompt))
    assert len(set(seen)) == 3


def test_skip_tokens_leaves_tokens_out_of_the_target(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    """As in Captum 0.7, and in the notebooks of its time."""
    for skip in (["and"], [tok.numbers["and"]]):
        assert attributed(lib, model, tok, skip_tokens=skip).output_tokens == ["golf", "tennis"]


@pytest.mark.parametrize("wrapper", ["LLMAttribution", "LLMGradientAttribution"])
def test_attribute_future_is_not_implemented(
    lib: ModuleType, model: SmallModel, tok: WordTokenizer, wrapper: str
) -> None:
    method = (
        lib.FeatureAblation(model) if wrapper == "LLMAttribution" else lib.LayerIntegratedGradients(model, model.embed)
    )
    with pytest.raises(NotImplementedError, match="attribute_future is not implemented"):
        getattr(lib, wrapper)(method, tok).attribute_future()


def test_dict_likes_are_model_inputs(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    class Encoded(lib.TextTemplateInput):
        def to_model_input(self, perturbed_tensor: Tensor | None = None) -> Any:
            ids = tok.encode(super().to_model_input(perturbed_tensor), return_tensors="pt")
            return {"input_ids": ids, "extra": torch.ones(1)}

    found = attributed(lib, model, tok, inp=Encoded(NAMED, VALUES, BASELINES))
    assert torch.allclose(found.token_attr, attributed(lib, model, tok).token_attr, atol=1e-6)
    assert found.inp.to_model_input()["extra"].item() == 1
    with pytest.raises(AssertionError, match="Invalid model input"):
        lib.LLMAttribution(lib.FeatureAblation(model), tok)._format_model_input(7)


def test_inputs_of_ones_own_are_supported(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    base = (
        importlib.import_module("captum.attr").InterpretableInput
        if lib.__name__ == "captum.attr"
        else lib.InterpretableInput
    )

    class Doubled(base):
        n_itp_features, values = 2, ["Dave", "Rome"]

        def to_tensor(self) -> Tensor:
            return torch.full((1, 2), 2.0)

        def to_model_input(self, perturbed_tensor: Tensor | None = None) -> str:
            present = [2.0, 2.0] if perturbed_tensor is None else perturbed_tensor[0].tolist()
            name, city = (
                own if here == 2 else other
                for own, other, here in zip(["Dave", "Rome"], ["Sue", "Miami"], present, strict=True)
            )
            return f"{name} lives in {city} and likes"

    found = attributed(lib, model, tok, inp=Doubled())
    assert torch.allclose(found.token_attr, attributed(lib, model, tok).token_attr, atol=1e-6)


def test_tokenizers_without_offsets_work(lib: ModuleType, model: SmallModel) -> None:
    tok = WordTokenizer(WORDS, offsets=False)
    assert attributed(lib, model, tok).output_tokens == ["golf", "and", "tennis"]


@pytest.mark.parametrize("text", [" über", " a\nb", " 数", " 🙂"])
def test_output_tokens_are_pretty(lib: ModuleType, llama: Any, text: str) -> None:
    model, tok = llama
    found = attributed(lib, model, tok, target=text)
    assert len(found.output_tokens) == len(tok.encode(text, add_special_tokens=False))
    assert not any("Ġ" in token or "\n" in token for token in found.output_tokens)


# --- Lime -----------------------------------------------------------------------------------------------------------


class Means:
    """An interpretable model: weighted differences of means."""

    def fit(self, loader: Any) -> None:
        ((x, y, w),) = list(loader)
        assert x.dtype == y.dtype == w.dtype == torch.float32
        self.coefficients = torch.stack([(w * y * (2 * row - 1)).sum() / w.sum() for row in x.T])

    def representation(self) -> Tensor:
        return self.coefficients


def test_lime_takes_another_model(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    fitted = Means()
    found = lib.LLMAttribution(lib.Lime(model, interpretable_model=fitted), tok).attribute(
        lib.TextTemplateInput(NAMED, VALUES, BASELINES), target="golf", n_samples=12, forward_in_tokens=False
    )
    assert torch.allclose(found.seq_attr, fitted.coefficients, atol=1e-6)


def test_lime_takes_another_kernel(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    seen: list[Any] = []

    def kernel(original: Tensor, perturbed: Tensor, sample: Tensor, **options: Any) -> float:
        seen.append((original.tolist(), perturbed.shape, sample.shape, sorted(options)))
        return 1.0

    lib.LLMAttribution(lib.Lime(model, interpretable_model=Means(), similarity_func=kernel), tok).attribute(
        lib.TextTemplateInput(NAMED, VALUES, BASELINES), target="golf", n_samples=4, forward_in_tokens=False
    )
    names = ["baselines", "feature_mask", "num_interp_features"]
    assert seen == [([[1.0, 1.0]], (1, 2), (1, 2), names)] * 4


def test_lime_takes_other_samples(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    rows = iter([[1, 1], [0, 1], [1, 0], [0, 0]])

    def perturb(original: Tensor, **options: Any) -> Tensor:
        return torch.tensor([next(rows)])

    fitted = Means()
    wrapper = lib.LLMAttribution(
        lib.Lime(model, interpretable_model=fitted, similarity_func=lambda *_, **__: 1.0, perturb_func=perturb), tok
    )
    found = wrapper.attribute(
        lib.TextTemplateInput(NAMED, VALUES, BASELINES), target="golf", n_samples=4, forward_in_tokens=False
    )
    assert torch.isfinite(found.seq_attr).all() and next(rows, None) is None


def test_samples_may_come_from_a_generator_that_ends(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    def perturb(original: Tensor, **options: Any) -> Any:
        for row in ([1, 1], [0, 1], [1, 0]):
            yield torch.tensor([row])

    wrapper = lib.LLMAttribution(lib.Lime(model, interpretable_model=Means(), perturb_func=perturb), tok)
    with pytest.warns(UserWarning, match="Generator completed prior to given n_samples iterations!"):
        wrapper.attribute(
            lib.TextTemplateInput(NAMED, VALUES, BASELINES), target="golf", n_samples=9, forward_in_tokens=False
        )


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", GRADIENT)
@pytest.mark.parametrize("of", ["small", "llama"])
def test_gradients_have_shapes_and_add_up(
    lib: ModuleType, model: SmallModel, tok: WordTokenizer, llama: Any, method: str, of: str
) -> None:
    net, own = (model, tok) if of == "small" else llama
    layer = net.embed if of == "small" else net.model.embed_tokens
    target = "golf and" if of == "small" else "go"
    inp = lib.TextTokenInput("Dave likes", own)
    found = lib.LLMGradientAttribution(getattr(lib, method)(net, layer), own).attribute(inp, target=target)
    assert found.token_attr.shape == (2, len(inp.values))
    assert torch.allclose(found.seq_attr, found.token_attr.sum(0))
    assert found.input_tokens == inp.values and found.seq_attr.dtype == layer.weight.dtype


@pytest.mark.parametrize("options", [{}, {"n_steps": 20}, {"method": "riemann_middle"}, {"internal_batch_size": 2}])
def test_integrated_gradients_add_up(
    lib: ModuleType, model: SmallModel, tok: WordTokenizer, options: dict[str, Any]
) -> None:
    method = lib.LayerIntegratedGradients(model, model.embed)
    inp = lib.TextTokenInput("Dave likes", tok, baselines="Sue", skip_tokens=["<s>"])
    found = lib.LLMGradientAttribution(method, tok).attribute(inp, target="golf and", **options)
    gained = log_probs(model, tok, "Dave likes", "golf and") - log_probs(model, tok, "Sue Sue", "golf and")
    assert torch.allclose(found.token_attr.sum(1), gained, atol=2e-3)


def test_gradients_at_what_layers_read(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    inp = lib.TextTokenInput("Dave likes", tok)
    read = lib.LLMGradientAttribution(lib.LayerIntegratedGradients(model, model.mix), tok)
    returned = lib.LLMGradientAttribution(lib.LayerIntegratedGradients(model, model.embed), tok)
    assert torch.allclose(
        read.attribute(inp, target="golf", attribute_to_layer_input=True).seq_attr,
        returned.attribute(inp, target="golf").seq_attr,
        atol=1e-6,
    )


def test_gradients_may_be_left_unmultiplied(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    method = lib.LayerGradientXActivation(model, model.embed, multiply_by_inputs=False)
    found = lib.LLMGradientAttribution(method, tok).attribute(lib.TextTokenInput("Dave likes", tok), target="golf")
    embedded = model.embed(tok.encode("Dave likes", return_tensors="pt")).detach().requires_grad_()
    handle = model.embed.register_forward_hook(lambda *_: embedded)
    score = model(torch.zeros(1, 3, dtype=torch.long)).logits[0, -1].log_softmax(-1)[tok.numbers["golf"]]
    handle.remove()
    (slope,) = torch.autograd.grad(score, embedded)
    assert torch.allclose(found.seq_attr, slope[0].sum(-1), atol=1e-6)


def test_several_layers_give_a_result_each(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    method = lib.LayerGradientXActivation(model, [model.embed, model.mix])
    found = lib.LLMGradientAttribution(method, tok).attribute(lib.TextTokenInput("Dave likes", tok), target="golf and")
    assert [one.token_attr.shape for one in found] == [(2, 3), (2, 3)]


def test_a_convergence_delta_is_returned(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    wrapper = lib.LLMGradientAttribution(lib.LayerIntegratedGradients(model, model.embed), tok)
    found, delta = wrapper.attribute(
        lib.TextTokenInput("Dave likes", tok), target="golf and", return_convergence_delta=True
    )
    assert found.token_attr.shape == (2, 3) and delta.shape == (2,) and float(delta.abs().max()) < 1e-3


def test_layer_gradient_shap_is_its_definition(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    """The mean of gradients at random points between the activations, times their difference, of each token."""
    wrapper = lib.LLMGradientAttribution(lib.LayerGradientShap(model, model.embed), tok)
    inp = lib.TextTokenInput("Dave likes", tok, baselines="Sue")
    found = wrapper.attribute(inp, baselines=torch.zeros(1, 3, dtype=torch.long), n_samples=4000, target="golf and")
    expected = lib.LLMGradientAttribution(lib.LayerIntegratedGradients(model, model.embed), tok).attribute(
        inp, target="golf and", n_steps=200
    )
    assert torch.allclose(found.token_attr, expected.token_attr, atol=0.02 * float(expected.token_attr.abs().max()))


def test_gradients_of_other_inputs_are_refused(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    wrapper = lib.LLMGradientAttribution(lib.LayerIntegratedGradients(model, model.embed), tok)
    with pytest.raises(AssertionError, match="does not support input type"):
        wrapper.attribute(lib.TextTemplateInput(NAMED, VALUES), target="golf")
    with pytest.raises(AssertionError, match="LLMGradientAttribution does not support"):
        lib.LLMGradientAttribution(lib.FeatureAblation(model), tok)


def test_a_subclass_may_keep_the_dimensions(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    class Kept(lib.LLMGradientAttribution):
        def attribute(self, inp: Any, target: str) -> list[Tensor]:
            assert isinstance(inp, self.SUPPORTED_INPUTS)
            tokens = torch.tensor(self.tokenizer.encode(target)[1:])
            tensor = inp.to_tensor().to(self.device)
            ids = self._format_model_input(inp.to_model_input())
            assert (ids["input_ids"] if isinstance(ids, dict) else ids).shape == (1, 3) and self.model is model
            found = []
            for number in range(len(tokens)):
                attr = self.attr_method.attribute(tensor, additional_forward_args=(inp, tokens, number))
                found.append(attr[:, :-number] if number else attr)
            return found

    method = lib.LayerIntegratedGradients(model, model.embed)
    found = Kept(method, tok).attribute(lib.TextTokenInput("Dave likes", tok), "golf and")
    whole = lib.LLMGradientAttribution(method, tok).attribute(lib.TextTokenInput("Dave likes", tok), target="golf and")
    assert [one.shape for one in found] == [(1, 3, 12), (1, 3, 12)]
    assert torch.allclose(torch.cat(found).sum(-1), whole.token_attr, atol=1e-6)


# --- results --------------------------------------------------------------------------------------------------------


def result(lib: ModuleType, **given: Any) -> Any:
    return lib.LLMAttributionResult(
        **{"input_tokens": ["a", "b"], "output_tokens": ["x"], "seq_attr": [1.0, -2.0], "token_attr": [[1.0, -2.0]]}
        | given
    )


def test_a_result_makes_tensors(lib: ModuleType) -> None:
    found = result(lib, output_probs=[0.5])
    assert found.seq_attr.tolist() == [1.0, -2.0] and found.token_attr.shape == (1, 2)
    assert found.output_probs.tolist() == [0.5] and found.seq_attr_dict == {"a": 1.0, "b": -2.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"seq_attr": [[1.0, 2.0]]}, {"seq_attr": [1.0]}, {"token_attr": [1.0, 2.0]}, {"token_attr": [[1.0]]},
        {"output_probs": [0.5, 0.5]}, {"output_probs": [[0.5]]},
    ],
)  # fmt: skip
def test_a_result_checks_shapes(lib: ModuleType, wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        result(lib, **wrong)


@pytest.mark.parametrize("plot", ["plot_token_attr", "plot_seq_attr"])
def test_plots_return_a_figure_or_show_it(lib: ModuleType, monkeypatch: pytest.MonkeyPatch, plot: str) -> None:
    import matplotlib.pyplot as plt

    shown: list[bool] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    figure, axes = getattr(result(lib), plot)()
    assert axes in figure.axes and not shown
    assert getattr(result(lib), plot)(show=True) is None and shown == [True]
    plt.close("all")


def test_a_plot_of_tokens_needs_scores_of_tokens(lib: ModuleType) -> None:
    with pytest.raises(ValueError, match="token_attr is None"):
        result(lib, token_attr=None).plot_token_attr()


def test_a_plot_of_an_image_needs_an_image(lib: ModuleType) -> None:
    with pytest.raises(ValueError, match="only available for"):
        result(lib).plot_image_heatmap()


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def image() -> Any:
    from PIL import Image

    return Image.new("RGB", (4, 2), (10, 20, 30))


def test_an_image_has_segments(lib: ModuleType, image: Any) -> None:
    mask = torch.tensor([[0, 0, 5, 5], [0, 0, 5, 5]])
    inp = lib.ImageMaskInput(image, mask=mask)
    assert inp.n_itp_features == 2 and inp.values == ["image_feature_0", "image_feature_5"]
    assert inp.mask_id_to_idx == {0: 0, 5: 1} and inp.to_tensor().tolist() == [[1.0, 1.0]]
    painted = inp.to_model_input(torch.tensor([[1.0, 0.0]]))
    assert [painted.getpixel((x, 0)) for x in (0, 3)] == [(10, 20, 30), (255, 255, 255)]
    assert inp.to_model_input() is image


def test_an_image_without_a_mask_is_one_feature(lib: ModuleType, image: Any) -> None:
    inp = lib.ImageMaskInput(image, baseline=(0, 0, 0))
    assert inp.n_itp_features == 1 and inp.to_model_input(torch.zeros(1, 1)).getpixel((1, 1)) == (0, 0, 0)


def test_masks_may_overlap(lib: ModuleType, image: Any) -> None:
    masks = [torch.tensor([[1, 1, 0, 0]] * 2).bool(), torch.tensor([[0, 1, 1, 0]] * 2).bool()]
    inp = lib.ImageMaskInput(image, mask_list=masks)
    assert inp.format_pixel_attr(torch.tensor([[1.0, 2.0]]))[0, 0].tolist() == [1.0, 3.0, 2.0, 0.0]
    assert inp.format_attr(torch.tensor([[1.0, 2.0]])).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("wrong", [{"mask": torch.zeros(2, 2)}, {"mask_list": [torch.zeros(4, 2)]}])
def test_masks_have_the_images_shape(lib: ModuleType, image: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="must match image shape"):
        lib.ImageMaskInput(image, **wrong)


def test_an_image_is_explained_and_drawn(lib: ModuleType, image: Any, model: SmallModel, tok: WordTokenizer) -> None:
    def processor(picture: Any) -> dict[str, Tensor]:
        bright = [picture.getpixel((x, 0))[0] > 100 for x in (0, 3)]
        text = " ".join("golf" if one else "tennis" for one in bright)
        return {"input_ids": tok.encode(text, return_tensors="pt")}

    inp = lib.ImageMaskInput(image, mask=torch.tensor([[0, 0, 1, 1]] * 2), processor_fn=processor)
    found = attributed(lib, model, tok, inp=inp, target="and")
    lost = log_probs(model, tok, "tennis tennis", "and") - log_probs(model, tok, "golf tennis", "and")
    assert torch.allclose(found.token_attr[:, 0], lost, atol=1e-6)
    for position in (None, 0, (0, 1)):
        figure, axes = found.plot_image_heatmap(target_token_pos=position)
        assert axes in figure.axes
    figure, axes = inp.plot_mask_overlay(border_width=1)
    assert axes in figure.axes


# --- remote models --------------------------------------------------------------------------------------------------


def provider_of(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> Any:
    class Provider(lib.RemoteLLMProvider):
        api_url = "http://nowhere"
        prompts: list[str] = []

        def generate(self, prompt: str, **gen_args: Any) -> str:
            return "golf and"

        def get_logprobs(self, input_prompt: str, target_str: str, tokenizer: Any = None) -> list[float]:
            self.prompts.append(input_prompt)
            return log_probs(model, tok, input_prompt, target_str).tolist()

    return Provider()


@pytest.mark.parametrize("method", PERTURBATION)
def test_a_remote_model_is_explained(lib: ModuleType, model: SmallModel, tok: WordTokenizer, method: str) -> None:
    provider = provider_of(lib, model, tok)
    remote = lib.RemoteLLMAttribution(getattr(lib, method)(lib.RemoteLLMAttribution.placeholder_model), tok, provider)
    torch.manual_seed(0)
    found = remote.attribute(lib.TextTemplateInput(NAMED, VALUES, BASELINES), target="golf and tennis")
    torch.manual_seed(0)
    local = attributed(lib, model, tok, method)
    assert torch.allclose(found.seq_attr, local.seq_attr, atol=1e-5)
    assert found.output_tokens == ["golf", "and", "tennis"] and "Dave lives in Rome and likes" in provider.prompts


def test_a_remote_model_writes_the_target(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    remote = lib.RemoteLLMAttribution(
        lib.FeatureAblation(lib.RemoteLLMAttribution.placeholder_model), tok, provider_of(lib, model, tok)
    )
    assert remote.attribute(lib.TextTemplateInput(NAMED, VALUES)).output_tokens == ["golf", "and"]


def test_a_provider_must_return_a_number_for_each_token(lib: ModuleType, model: SmallModel, tok: WordTokenizer) -> None:
    provider = provider_of(lib, model, tok)
    provider.get_logprobs = lambda **_: [-1.0]
    remote = lib.RemoteLLMAttribution(lib.FeatureAblation(lib.RemoteLLMAttribution.placeholder_model), tok, provider)
    with pytest.raises(ValueError, match="does not match expected"):
        remote.attribute(lib.TextTemplateInput(NAMED, VALUES), target="golf and")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module ``openai`` whose client answers what the test says."""
    state = SimpleNamespace(models=["first", "second"], answer=None, asked=[])

    class OpenAI:
        def __init__(self, base_url: str, api_key: str) -> None:
            state.key = api_key
            found = [SimpleNamespace(id=name) for name in state.models]
            self.models = SimpleNamespace(list=lambda: SimpleNamespace(data=found))
            self.completions = SimpleNamespace(create=self.create)

        def create(self, **given: Any) -> Any:
            state.asked.append(given)
            if isinstance(state.answer, Exception):
                raise state.answer
            return state.answer

    module = ModuleType("openai")
    module.OpenAI = OpenAI
    monkeypatch.setitem(sys.modules, "openai", module)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    return state


def answer(**choice: Any) -> SimpleNamespace:
    return SimpleNamespace(choices=[SimpleNamespace(**choice)])


def test_vllm_takes_the_first_model(lib: ModuleType, server: SimpleNamespace) -> None:
    assert lib.VLLMProvider("http://here").model_name == "first" and server.key == "EMPTY"
    assert lib.VLLMProvider("http://here", "mine").model_name == "mine"


def test_vllm_needs_an_address_and_a_model(lib: ModuleType, server: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="API URL is required"):
        lib.VLLMProvider(" ")
    server.models = []
    with pytest.raises(ValueError, match="No models available"):
        lib.VLLMProvider("http://here")


def test_vllm_needs_openai(lib: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match="'openai' package is required"):
        lib.VLLMProvider("http://here")


def test_vllm_generates(lib: ModuleType, server: SimpleNamespace) -> None:
    server.answer = answer(text=" golf")
    assert lib.VLLMProvider("http://here").generate("Dave likes", max_new_tokens=3, do_sample=False) == " golf"
    assert server.asked[-1] == {"model": "first", "prompt": "Dave likes", "max_tokens": 3}


def test_vllm_returns_log_probabilities(lib: ModuleType, server: SimpleNamespace, tok: WordTokenizer) -> None:
    rows = [None, {"3": {"logprob": -9.0}}, {"4": {"logprob": -1.5}}, {"5": {"logprob": -0.5}}]
    server.answer = answer(prompt_logprobs=rows)
    found = lib.VLLMProvider("http://here").get_logprobs("Dave likes ", "golf and", tok)
    assert found == [-1.5, -0.5]
    assert server.asked[-1]["prompt"] == "Dave likes golf and" and server.asked[-1]["max_tokens"] == 1
    assert server.asked[-1]["extra_body"] == {"prompt_logprobs": 0}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (SimpleNamespace(choices=[]), KeyError),
        (answer(prompt_logprobs=None), KeyError),
        (answer(prompt_logprobs=[{"5": {"logprob": -0.5}}]), ValueError),
        (answer(prompt_logprobs=[None, None]), ValueError),
        (ConnectionError("down"), ConnectionError),
    ],
)
def test_vllm_says_what_is_wrong(
    lib: ModuleType, server: SimpleNamespace, tok: WordTokenizer, given: Any, error: type[Exception]
) -> None:
    provider = lib.VLLMProvider("http://here")
    server.answer = given
    with pytest.raises(error):
        provider.get_logprobs("Dave likes ", "golf and", tok)


def test_vllm_needs_a_tokenizer_and_a_target(lib: ModuleType, server: SimpleNamespace, tok: WordTokenizer) -> None:
    provider = lib.VLLMProvider("http://here")
    with pytest.raises(ValueError, match="Tokenizer is required"):
        provider.get_logprobs("Dave", "golf")
    with pytest.raises(ValueError, match="Target string cannot be empty"):
        provider.get_logprobs("Dave", "", tok)


def behaviours() -> list[Callable[..., None]]:
    """All tests of this module that run against both."""
    found = [value for name, value in globals().items() if name.startswith("test_") and callable(value)]
    return [one for one in found if "lib" in one.__code__.co_varnames[: one.__code__.co_argcount]]


def test_the_page_says_how_many_of_these_captum_passes() -> None:
    from pathlib import Path

    total = len(behaviours())
    assert {one.__name__ for one in behaviours()} >= CAPTUM_FAILS
    page = (Path(__file__).parent.parent / "docs/how-to/from-captum.md").read_text(encoding="utf-8")
    assert f"{total - len(CAPTUM_FAILS)} of {total}" in page

"""Captum called for real beside apportion: the same model, prompt, target and seed give the same numbers.

Captum runs with ``forward_in_tokens=False``: its default path is wrong with transformers 5.
"""

from __future__ import annotations

import warnings

import pytest
import torch

import apportion as ap
from apportion.testing import games, tiny
from apportion_plugins.methods.captum import CaptumKernelShap, CaptumLime

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import (
        DeepLift,
        FeatureAblation,
        KernelShap,
        LayerDeepLift,
        LayerGradientXActivation,
        LayerIntegratedGradients,
        Lime,
        LLMAttribution,
        LLMGradientAttribution,
        ShapleyValueSampling,
        TextTemplateInput,
        TextTokenInput,
    )

TEMPLATE = "{name} in {city}, {state}, a {job}: {pronoun} hobby is"
VALUES = {"name": "Dave", "city": "Miami", "state": "FL", "job": "lawyer", "pronoun": "His"}
BASELINES = {"name": "Sarah", "city": "Seattle", "state": "WA", "job": "doctor", "pronoun": "Her"}
TARGET = " playing golf"
NAMES = {
    "ablation": FeatureAblation,
    "permutation": ShapleyValueSampling,
    "captum_kernel_shap": KernelShap,
    "captum_lime": Lime,
}


def options(method: str, samples: int) -> tuple[dict[str, int], dict[str, object]]:
    """Captum's options, and ours."""
    if method == "ablation":
        return {}, {}
    if method == "permutation":
        # An order takes as many forwards as there are features.
        return {"n_samples": samples // 4}, {"antithetic": False, "n_permutations": samples // 4}
    return {"n_samples": samples}, {"n_samples": samples}


SMOLLM2 = pytest.param("smollm2", marks=[pytest.mark.demo, pytest.mark.slow, pytest.mark.timeout(600)])


@pytest.fixture(params=["tiny", SMOLLM2])
def model(request: pytest.FixtureRequest) -> ap.Explainer:
    found: ap.Explainer = request.getfixturevalue("explainer" if request.param == "tiny" else request.param)
    return found


def captum(explainer: ap.Explainer, attribution: type, inputs: object, seed: int, **options: object) -> torch.Tensor:
    """Captum's values: the sequence, and the tokens where it gives them."""
    method = attribution(explainer.session.model)
    with warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        found = LLMAttribution(method, explainer.session.tokenizer, attr_target="log_prob").attribute(
            inputs, target=TARGET, forward_in_tokens=False, **options
        )
    rows = [found.seq_attr[None]] if found.token_attr is None else [found.seq_attr[None], found.token_attr]
    return torch.cat(rows).double()


def assert_same(ours: ap.Attribution, theirs: torch.Tensor) -> None:
    found = torch.cat([torch.tensor(ours.values)[None], torch.tensor(ours.token_values)])[: len(theirs)]
    assert len(theirs) in (1, 1 + len(ours.target_tokens))
    assert float(theirs.abs().max()) > 0.01
    assert torch.allclose(found, theirs, atol=1e-5, rtol=0), (found - theirs).abs().max()


@pytest.mark.parametrize("method", NAMES)
def test_slots(model: ap.Explainer, method: str) -> None:
    theirs_options, ours_options = options(method, 12)
    inputs = TextTemplateInput(TEMPLATE, VALUES, BASELINES)
    theirs = captum(model, NAMES[method], inputs, seed=7, **theirs_options)
    template = ap.Template(TEMPLATE, VALUES, BASELINES)
    assert_same(model.attribute(template, TARGET, method=method, seed=7, **ours_options), theirs)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("method", NAMES)
def test_tokens(explainer: ap.Explainer, method: str, seed: int) -> None:
    """More features: from 16 normals on PyTorch draws them by other code."""
    theirs_options, ours_options = options(method, 28)
    text = "seventeen letters"
    theirs = captum(explainer, NAMES[method], TextTokenInput(text, explainer.session.tokenizer), seed, **theirs_options)
    prompt = ap.Text(text, by="tokens", baseline=0)
    assert theirs.shape[1] == 17
    assert_same(explainer.attribute(prompt, TARGET, method=method, seed=seed, **ours_options), theirs)


@pytest.mark.parametrize("method", [CaptumKernelShap(), CaptumLime()], ids=lambda m: type(m).__name__)
def test_how_many_draws(method: ap.Method) -> None:
    asked: list[torch.Tensor] = []

    def function(mask: torch.Tensor) -> torch.Tensor:
        asked.append(mask)
        return games.random_moebius(12, 2)(mask)

    def run(budget: int | None, n_samples: object = None, n: int = 12) -> int:
        asked.clear()
        rng = torch.Generator().manual_seed(0)
        game = ap.Game.from_function(function if n == 12 else games.random_moebius(n, 2), n)
        method.run(game, budget=budget, rng=rng, n_samples=n_samples)
        return game.evaluations

    assert 20 <= run(None) <= 25
    assert 30 <= run(40) <= 40
    assert 40 < run(None, 100) <= 100
    # Repeats are scored once, so that many draws fit a budget for all coalitions.
    assert run(32, 1000, n=5) == 32
    with pytest.raises(ap.BudgetError, match=r"n_samples=100 .* 100 distinct ones, and the budget is 99"):
        run(99, 100)
    for wrong in (1, True, 2.5, "25"):
        with pytest.raises(ap.InputError, match="whole number of at least 2"):
            run(None, wrong)
    assert not asked


def test_kernel_draws_that_determine_nothing_say_so() -> None:
    known = games.random_moebius(8, 2)
    rng = torch.Generator().manual_seed(0)
    found = CaptumKernelShap().run(ap.Game.from_function(known, 8), budget=None, rng=rng, n_samples=4)
    assert found.notes == ("4 draws do not determine the values of 8 features",)
    assert found.std_error.isnan().all()


# --- gradients at layers

LAYERS = {
    "embeddings": ["model.embed_tokens"],
    "one": ["model.layers.1.self_attn.v_proj"],
    "several": ["model.layers.0.self_attn.k_proj", "model.layers.0.mlp", "model.layers.1.self_attn.q_proj"],
}
GRADIENTS = {
    "layer_integrated_gradients": (LayerIntegratedGradients, {"n_steps": 12}, {"steps": 12, "baseline": 0}),
    "layer_gradient_x_activation": (LayerGradientXActivation, {}, {}),
}


def captum_at_layers(explainer: ap.Explainer, method: str, text: str, names: list[str]) -> torch.Tensor:
    """Captum's scores of each module, ``Float[M, T, P]``, from its wrapper for language models.

    Of several modules, its wrapper fails on the list that the method returns, so the method is called as it would be.
    """
    kind, options, _ = GRADIENTS[method]
    model, tokenizer = explainer.session.model, explainer.session.tokenizer
    modules = [model.get_submodule(name) for name in names]
    inputs = TextTokenInput(text, tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapper = LLMGradientAttribution(kind(model, modules if len(modules) > 1 else modules[0]), tokenizer)
        if len(modules) == 1:
            return wrapper.attribute(inputs, target=TARGET, **options).token_attr[None].detach().double()
        target = torch.tensor(tokenizer(TARGET, add_special_tokens=False)["input_ids"])
        rows = []
        for t in range(len(target)):
            found = wrapper.attr_method.attribute(
                inputs.to_tensor(), additional_forward_args=(inputs, target, t), **options
            )
            parts = [one[0] if isinstance(one, tuple) else one for one in found]
            rows.append(torch.stack([part[0, : part.shape[1] - t].sum(-1).detach() for part in parts]))
    return torch.stack(rows, dim=1).double()


@pytest.mark.parametrize("which", LAYERS)
@pytest.mark.parametrize("method", GRADIENTS)
def test_gradients_at_layers(model: ap.Explainer, method: str, which: str) -> None:
    text, names = "Dave lives in Palm Coast, FL", LAYERS[which]
    theirs = captum_at_layers(model, method, text, names)
    prompt = ap.Text(text, by="tokens")
    ours = model.attribute(prompt, TARGET, method=method, layers=names, **GRADIENTS[method][2])
    assert torch.allclose(torch.tensor(ours.extras["module_token_values"]), theirs, atol=1e-4, rtol=0)
    assert torch.allclose(torch.tensor(ours.values), theirs.sum((0, 1)), atol=1e-4, rtol=0)
    assert float(theirs.abs().max()) > 0.01


class LastToken(torch.nn.Module):
    """The log-probability of a token after a prompt given by its embeddings, as Captum's DeepLIFT takes it."""

    def __init__(self, model: torch.nn.Module, token: int) -> None:
        super().__init__()
        self.model, self.token = model, token

    def forward(self, embedded: torch.Tensor) -> torch.Tensor:
        logits = self.model(inputs_embeds=embedded, use_cache=False).logits[:, -1]
        return logits.log_softmax(-1)[:, self.token]


@pytest.mark.parametrize("family", ["opt", "llama"])
@pytest.mark.parametrize("layer", [None, "fc1", "self_attn.v_proj"])
def test_deeplift(family: str, layer: str | None) -> None:
    """OPT has ReLU, which Captum rescales; the SiLU of Llama keeps its gradient there."""
    model, tokenizer = tiny.model(family), tiny.tokenizer()
    base = "model.decoder.layers.0" if family == "opt" else "model.layers.0"
    layer = {"fc1": "mlp.up_proj"}.get(layer or "", layer) if family == "llama" else layer
    text, ids = "Palm Coast", tokenizer("Palm Coast")["input_ids"]
    embed = model.get_input_embeddings()
    ours_options = {"baseline": 0, "rule": "captum"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        point, start = embed(torch.tensor([ids])).detach(), embed(torch.zeros(1, len(ids), dtype=torch.long)).detach()
        wrapped = LastToken(model, tokenizer("x")["input_ids"][0])
        if layer is None:
            theirs = DeepLift(wrapped).attribute(point, start).sum(-1)[0]
        else:
            name = f"{base}.{layer}"
            theirs = LayerDeepLift(wrapped, model.get_submodule(name)).attribute(point, start)
            theirs = theirs.reshape(len(ids), -1).sum(-1)
            ours_options["layers"] = name
    with ap.Explainer((model, tokenizer), progress=False) as explainer:
        prompt, method = ap.Text(text, by="tokens"), "deeplift" if layer is None else "layer_deeplift"
        ours = explainer.attribute(prompt, "x", method=method, **ours_options)
        assert torch.allclose(torch.tensor(ours.values), theirs.detach(), atol=1e-7, rtol=0)
        assert float(theirs.detach().abs().max()) > 1e-4
        if layer is None:
            other = explainer.attribute(prompt, "x", method=method, baseline=0, rule="rescale")
            assert (abs(other.values - ours.values).max() < 1e-7) == (family == "opt")

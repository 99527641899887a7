"""Captum called for real beside apportion: the same model, prompt, target and seed give the same numbers.

Captum runs with ``forward_in_tokens=False``: its default path is wrong with transformers 5.
"""

from __future__ import annotations

import warnings

import pytest
import torch

import apportion as ap
from apportion.testing import games
from apportion_plugins.methods.captum import CaptumKernelShap, CaptumLime

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import (
        FeatureAblation,
        KernelShap,
        Lime,
        LLMAttribution,
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

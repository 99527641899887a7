"""Captum and Inseq called for real beside the gradient methods: the same steps, baselines and draws, the same numbers.

Scores of each dimension are compared, before anything is summed.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

import apportion as ap
from apportion.testing import tiny

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import GradientShap, InputXGradient, LayerIntegratedGradients, Saliency

STEPS, SAMPLES, SEED = 6, 5, 3
BASELINE = "_"
PROMPT = "abc"
SMOLLM2 = pytest.param("smollm2", marks=[pytest.mark.demo, pytest.mark.slow, pytest.mark.timeout(600)])


@pytest.fixture(params=["tiny", SMOLLM2])
def model(request: pytest.FixtureRequest) -> Iterator[ap.Explainer]:
    """Both in float64: in fp32, gradients of SmolLM2 after a single token differ by rounding by 1e-4 of the largest."""
    if request.param == "tiny":
        yield request.getfixturevalue("explainer")
        return
    with ap.Explainer("smollm2", dtype="float64", progress=False) as found:
        yield found


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captum draws the points on the path that we draw."""
    draw = torch.Generator().manual_seed(SEED)
    places = [float(torch.rand((), generator=draw, dtype=torch.float64)) for _ in range(SAMPLES)]
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size: np.array(places[:size]))


def dims(explainer: ap.Explainer, method: str, **options: Any) -> np.ndarray:
    """Scores of each prompt token and dimension for one target token; Float[P, D]."""
    prompt = ap.Text(PROMPT, by="tokens")
    result = explainer.attribute(prompt, " ", method=method, keep_dims=True, seed=SEED, **options)
    return np.asarray(result.extras["dims"])


def close(ours: np.ndarray, theirs: Tensor) -> None:
    expected = theirs.detach().numpy()
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=1e-4 * float(np.abs(expected).max()))


def test_captum(model: ap.Explainer, same_draws: None) -> None:
    """Its methods on the embedding layer, with the log-probability of one target token."""
    net: PreTrainedModel = model.session.model  # type: ignore[attr-defined]
    tokenizer = model.session.tokenizer
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    (base,) = tokenizer(BASELINE)["input_ids"]
    (token,) = tokenizer(" ", add_special_tokens=False)["input_ids"]
    layer = net.get_input_embeddings()
    own, start = layer(ids).detach().requires_grad_(), layer(torch.full_like(ids, base)).detach()

    def by_embedding(points: Tensor) -> Tensor:
        return net(inputs_embeds=points, use_cache=False).logits[:, -1].log_softmax(-1)[:, token]

    def by_id(rows: Tensor) -> Tensor:
        return net(rows, use_cache=False).logits[:, -1].log_softmax(-1)[:, token]

    close(dims(model, "saliency"), Saliency(by_embedding).attribute(own, abs=False)[0])
    close(dims(model, "input_x_gradient"), InputXGradient(by_embedding).attribute(own)[0])
    integrated = LayerIntegratedGradients(by_id, layer).attribute(ids, torch.full_like(ids, base), n_steps=STEPS)
    close(dims(model, "integrated_gradients", baseline=BASELINE, steps=STEPS), integrated[0])
    shap = GradientShap(by_embedding).attribute(own, start, n_samples=SAMPLES)
    close(dims(model, "gradient_shap", baseline=BASELINE, n_samples=SAMPLES), shap[0])


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """A tiny model and a tokenizer that knows all of its tokens, one of them for unknown text, as Inseq needs it."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_tokens([f"<{i}>" for i in range(tiny.VOCABULARY - len(tokenizer))])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.unk_token = BASELINE
    return copy.deepcopy(tiny.model()), tokenizer


@pytest.fixture(scope="module")
def known(pair: tuple[Any, Any]) -> Iterator[ap.Explainer]:
    with ap.Explainer(pair, progress=False) as explainer:
        yield explainer


def inseq(pair: tuple[Any, Any], target: str, method: str, folder: Path, options: Mapping[str, Any]) -> Tensor:
    """Raw scores of the probability of each target token: of the prompt and all target tokens but the last."""
    library = pytest.importorskip("inseq", reason="Inseq is not installed: pip install inseq==0.7.1")
    logging.getLogger("inseq").setLevel(logging.ERROR)
    loading = {"save_cache": False, "cache_dir": folder} if method.startswith("discretized") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net, tokenizer = (copy.deepcopy(one) for one in pair)
        net.config._name_or_path = net.name_or_path = "tiny"
        peer = library.load_model(net, method, tokenizer=tokenizer, **loading)
        found = peer.attribute(PROMPT, PROMPT + target, show_progress=False, **options).sequence_attributions[0]
    scores: Tensor = found.target_attributions[:-1].nan_to_num()
    return scores.transpose(0, 1)


@pytest.mark.parametrize(
    ("method", "ours", "theirs"),
    [
        ("saliency", {}, {}),
        ("input_x_gradient", {}, {}),
        ("integrated_gradients", {"baseline": BASELINE, "steps": STEPS}, {"n_steps": STEPS}),
        ("gradient_shap", {"baseline": BASELINE, "n_samples": SAMPLES}, {"n_samples": SAMPLES}),
        ("discretized_integrated_gradients", {"baseline": BASELINE, "steps": STEPS}, {"n_steps": STEPS}),
        ("sequential_integrated_gradients", {"baseline": BASELINE, "steps": STEPS}, {"n_steps": STEPS}),
    ],
    ids=str,
)
def test_inseq(
    known: ap.Explainer,
    pair: tuple[Any, Any],
    same_draws: None,
    tmp_path: Path,
    method: str,
    ours: dict[str, Any],
    theirs: dict[str, Any],
) -> None:
    """Of each target token, with respect to the prompt and the target tokens before it."""
    expected = inseq(pair, " xyz", method, tmp_path, theirs)
    options = {"target_fn": "prob", "attribute_generated": True, "keep_dims": True, "seed": SEED}
    found = known.attribute(ap.Text(PROMPT, by="tokens"), " xyz", method=method, **options, **ours)
    dims = np.asarray(found.extras["token_dims"])
    # Captum's saliency, which Inseq uses, hides the sign.
    close(np.abs(dims) if method == "saliency" else dims, expected)

"""shap's model-agnostic explainers, applied to a batched function as a user would write it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from benchmarks.speed.peer import Peer, Run

from apportion_backends.torch.session import TorchSession

__all__ = ["exact", "kernel"]

BATCH = 16
"""Rows per forward pass of the function."""


def kernel(
    template: str, values: Mapping[str, str], baselines: Mapping[Any, Any], target: str, *, evaluations: int
) -> Peer:
    """``KernelExplainer`` on the slots of a template; ``evaluations`` include the empty and the full prompt."""

    def prepare(model: TorchSession) -> Run:
        import shap

        function = _function(model, template, values, baselines, target)
        n = len(values)

        def run() -> np.ndarray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.random.seed(0)
                explainer = shap.KernelExplainer(function, np.zeros((1, n)))
                found = explainer.shap_values(np.ones((1, n)), nsamples=evaluations - 2, l1_reg=False, silent=True)
            return np.asarray(found).reshape(-1)

        return run

    return Peer("shap", prepare, note="draws its own coalitions, so its values are different estimates")


def exact(template: str, values: Mapping[str, str], baselines: Mapping[Any, Any], target: str) -> Peer:
    """``ExactExplainer`` on the slots of a template."""

    def prepare(model: TorchSession) -> Run:
        import shap

        function = _function(model, template, values, baselines, target)
        n = len(values)

        def run() -> np.ndarray:
            explainer = shap.ExactExplainer(function, np.zeros((1, n)))
            return np.asarray(explainer(np.ones((1, n)), silent=True).values).reshape(-1)

        return run

    return Peer("shap", prepare, 1e-3, long=True)


def _function(
    model: TorchSession, template: str, values: Mapping[str, str], baselines: Mapping[Any, Any], target: str
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from rows of zeros and ones to log-probabilities of the target."""
    tokenizer = model.tokenizer
    target_ids = torch.tensor(tokenizer(target, add_special_tokens=False).input_ids)

    def function(rows: np.ndarray) -> np.ndarray:
        texts = [template.format(**filled(row)) for row in rows]
        return np.concatenate([score(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])

    def filled(row: np.ndarray) -> dict[str, str]:
        return {name: (values if on > 0.5 else baselines)[name] for name, on in zip(values, row, strict=True)}

    def score(texts: list[str]) -> np.ndarray:
        prompts = [torch.tensor(tokenizer(text).input_ids) for text in texts]
        ids = torch.nn.utils.rnn.pad_sequence([torch.cat([p, target_ids]) for p in prompts], batch_first=True)
        lengths = torch.tensor([len(p) for p in prompts])
        mask = torch.arange(ids.shape[1]) < (lengths + len(target_ids))[:, None]
        with torch.no_grad():
            scores = model.model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        places = lengths[:, None] - 1 + torch.arange(len(target_ids))
        rows = torch.arange(len(texts))[:, None]
        found: np.ndarray = scores[rows, places, target_ids].sum(1).double().numpy()
        return found

    return function

"""Captum's attribution for language models.

``forward_in_tokens=False`` selects its correct path. With transformers 5, the default path feeds the sequence again on
top of its cache, and is wrong for targets of two or more tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from benchmarks.speed.peer import Peer, Run

from apportion_backends.torch.session import TorchSession

__all__ = ["integrated_gradients", "slots", "tokens"]

WRONG = "its default path, which is wrong with transformers 5"


def tokens(method: str, text: str, target: str, *, default_path: bool = False) -> Peer:
    """A method of ``captum.attr`` on the tokens of a text."""

    def prepare(model: TorchSession) -> Run:
        from captum.attr import TextTokenInput

        return _run(model, method, TextTokenInput(text, model.tokenizer), target, default_path, {}, None)

    return _peer(prepare, default_path)


def slots(
    method: str,
    template: str,
    values: Mapping[str, str],
    baselines: Mapping[Any, Any],
    target: str,
    *,
    default_path: bool = False,
    seed: int | None = None,
    **options: Any,
) -> Peer:
    """A method of ``captum.attr`` on the slots of a template."""

    def prepare(model: TorchSession) -> Run:
        from captum.attr import TextTemplateInput

        inputs = TextTemplateInput(template, dict(values), dict(baselines))
        return _run(model, method, inputs, target, default_path, options, seed)

    return _peer(prepare, default_path)


def integrated_gradients(text: str, target: str, steps: int) -> Peer:
    """``LLMGradientAttribution`` of the embeddings, with token 0 as baseline; one row per target token."""

    def prepare(model: TorchSession) -> Run:
        from captum.attr import LayerIntegratedGradients, LLMGradientAttribution, TextTokenInput

        layer = model.model.get_input_embeddings()
        attribution = LLMGradientAttribution(LayerIntegratedGradients(model.model, layer), model.tokenizer)

        def run() -> np.ndarray:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = attribution.attribute(TextTokenInput(text, model.tokenizer), target=target, n_steps=steps)
            rows: np.ndarray = found.token_attr.detach().double().numpy()
            return rows

        return run

    return _peer(prepare, default_path=False)


def _peer(prepare: Any, default_path: bool) -> Peer:
    return Peer("captum", prepare, None if default_path else 1e-3, WRONG if default_path else "", wrong=default_path)


def _run(
    model: TorchSession,
    method: str,
    inputs: Any,
    target: str,
    default_path: bool,
    options: Mapping[str, Any],
    seed: int | None,
) -> Run:
    from captum import attr

    attribution = attr.LLMAttribution(getattr(attr, method)(model.model), model.tokenizer, attr_target="log_prob")
    path = {} if default_path else {"forward_in_tokens": False}

    def run() -> np.ndarray:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            if seed is not None:
                torch.manual_seed(seed)
            found = attribution.attribute(inputs, target=target, **options, **path)
        values: np.ndarray = found.seq_attr.double().numpy()
        return values

    return run

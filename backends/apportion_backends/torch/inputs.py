"""Inputs of a model: their device, and the name of its cache."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

__all__ = ["cache_argument", "input_device"]


def input_device(model: nn.Module) -> torch.device:
    """The device of a model's inputs; for an offloaded model, the one on which accelerate's hooks compute."""
    embeddings: Any = getattr(model, "get_input_embeddings", None)
    for module in (model, embeddings() if callable(embeddings) else None):
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))


def cache_argument(model: nn.Module) -> str:
    """The name of the cache in a model's forward: ``"cache"`` where it knows that, else ``"past_key_values"``."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

"""Modes that a model is held in while it is scored, and given back from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["evaluating", "scoring_mode"]


@contextmanager
def scoring_mode(model: torch.nn.Module) -> Iterator[None]:
    """Without gradients, dropout and autocast; a model that was training is training again afterwards."""
    with evaluating(model), torch.inference_mode():
        yield


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout and autocast, gradients as they are; a model that was training is training again afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        device = next((p.device.type for p in model.parameters()), "cpu")
        with torch.autocast(device, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True

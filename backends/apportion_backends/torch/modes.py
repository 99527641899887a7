"""How a model is held while it is scored, and given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["scoring_mode"]


@contextmanager
def scoring_mode(model: torch.nn.Module) -> Iterator[None]:
    """Without gradients, dropout and autocast; a model that was training is training again afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        device = next((p.device.type for p in model.parameters()), "cpu")
        with torch.inference_mode(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True

"""How a model is held while it is scored, and given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["scoring_mode"]


@contextmanager
def scoring_mode(model: torch.nn.Module) -> Iterator[None]:
    """Without gradients and dropout; a model that was training is training again afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True

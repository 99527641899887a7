"""The device on which a model takes its inputs."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["input_device"]


def input_device(model: nn.Module) -> torch.device:
    """Where a model takes its inputs; for offloaded models, where accelerate's hooks compute."""
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))

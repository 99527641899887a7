"""The name by which a model takes its cache, which differs between versions of transformers."""

from __future__ import annotations

import inspect

from torch import nn

__all__ = ["cache_argument"]


def cache_argument(model: nn.Module) -> str:
    """``"cache"`` where the model's forward knows it, else ``"past_key_values"``."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

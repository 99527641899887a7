"""Options in a form that results keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from apportion.options import name_of

__all__ = ["plain_options"]


def plain_options(options: Mapping[str, object]) -> dict[str, Any]:
    """Options for a file; objects, such as a sampler, become their name."""
    return {name: _plain(value) for name, value in options.items()}


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float | Sequence | Mapping | np.ndarray | torch.Tensor):
        return value
    return name_of(value)

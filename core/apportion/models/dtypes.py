"""Names of dtypes."""

from __future__ import annotations

import torch

from apportion.errors import BackendError, listing, shown

__all__ = ["DTYPES", "torch_dtype"]

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def torch_dtype(name: str | torch.dtype) -> torch.dtype:
    """The dtype of a name; a dtype is returned unchanged.

    Raises:
        BackendError: not one of ``DTYPES``.
    """
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name not in DTYPES:
        raise BackendError(f"No dtype is called {shown(name)}. Available: {listing(DTYPES)}.")
    return DTYPES[name]

"""The runtime of kernels: a GPU, or Triton's interpreter, which is slow and meant for tests."""

from __future__ import annotations

import contextlib
import os
import threading

import torch

__all__ = ["DTYPES", "interpreting", "launching", "power_of_two", "require_device", "upcasts"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Dtypes that the kernels read; they accumulate in fp32."""


def interpreting() -> bool:
    """True if kernels are interpreted. Triton reads the variable when a kernel is defined, so set it before that."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


_ONE_AT_A_TIME = threading.RLock()


def launching() -> contextlib.AbstractContextManager[object]:
    """A context in which to launch kernels; one thread at a time in the interpreter, whose state is global."""
    return _ONE_AT_A_TIME if interpreting() else contextlib.nullcontext()


def upcasts(dtype: torch.dtype) -> bool:
    """True if products need fp32 inputs: the interpreter's bf16 matrix product is wrong (triton 3.9)."""
    return interpreting() and dtype == torch.bfloat16


def power_of_two(number: int) -> int:
    """The smallest power of two that is at least ``number``."""
    return 1 << (max(1, number) - 1).bit_length()


def require_device(*tensors: torch.Tensor | None) -> None:
    """Check that all tensors are on one device, and that kernels can run there.

    Raises:
        ValueError: they are on several devices, or on one that cannot run kernels.
    """
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) != 1:
        raise ValueError(f"All tensors of a kernel must be on one device; these are on {sorted(map(str, devices))}.")
    if next(iter(devices)).type != "cuda" and not interpreting():
        raise ValueError(
            f"Triton kernels run on CUDA devices; these tensors are on {next(iter(devices))}. Move them, or set "
            "TRITON_INTERPRET=1 before Python starts to interpret kernels, which is slow and meant for tests."
        )

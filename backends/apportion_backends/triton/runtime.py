"""Where kernels run: on a GPU, or in Triton's interpreter, which is slow and for tests."""

from __future__ import annotations

import contextlib
import os
import threading

import torch

__all__ = ["DTYPES", "interpreting", "launching", "power_of_two", "require_device", "upcasts"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels read; they sum in fp32."""


def interpreting() -> bool:
    """Whether kernels are interpreted. Triton reads the variable when a kernel is defined, so it must be set before."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


_ONE_AT_A_TIME = threading.RLock()


def launching() -> contextlib.AbstractContextManager[object]:
    """Hold this while a kernel is launched: the interpreter keeps its place in variables that all threads share."""
    return _ONE_AT_A_TIME if interpreting() else contextlib.nullcontext()


def upcasts(dtype: torch.dtype) -> bool:
    """Whether products need fp32 inputs: the interpreter's product of bf16 matrices is wrong (triton 3.9)."""
    return interpreting() and dtype == torch.bfloat16


def power_of_two(number: int) -> int:
    """The smallest power of two that is no smaller."""
    return 1 << (max(1, number) - 1).bit_length()


def require_device(*tensors: torch.Tensor | None) -> None:
    """All tensors on one device, where kernels can run.

    Raises:
        ValueError: they are not.
    """
    devices = {tensor.device for tensor in tensors if tensor is not None}
    if len(devices) != 1:
        raise ValueError(
            f"All tensors of a kernel must be on one device, and these are on {sorted(map(str, devices))}."
        )
    if next(iter(devices)).type != "cuda" and not interpreting():
        raise ValueError(
            f"Triton kernels run on CUDA devices, and these tensors are on {next(iter(devices))}. Move them, or set "
            "TRITON_INTERPRET=1 before Python starts to have kernels interpreted, which is slow and for tests."
        )

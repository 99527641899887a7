"""Sizes of batches in ONNX Runtime."""

from __future__ import annotations

from apportion_backends.onnxruntime.providers import Provider

__all__ = ["BATCH_OVERHEAD", "batch_tokens", "memory_of"]

MEMORY_BUDGET = 512 * 2**20
"""Bytes that a batch may take; larger batches are no faster on a CPU."""
CPU_TOKENS = 1024
GPU_TOKENS = 16384
"""Not measured."""
BATCH_OVERHEAD = 40
"""Tokens' worth of time of one more forward pass, which reads all weights, as in the torch backend."""


def batch_tokens(provider: Provider) -> int:
    """Tokens of a batch that keep a device busy."""
    return CPU_TOKENS if provider.device == "cpu" else GPU_TOKENS


def memory_of(budget: int | None) -> int:
    """Bytes that a batch may take."""
    return MEMORY_BUDGET if budget is None else budget

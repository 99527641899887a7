"""The reference backend: eager PyTorch on any ``transformers`` causal language model."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_backends(register: Register) -> None:
    """Register the backend ``torch``."""
    register(
        "torch",
        "apportion_backends.torch.backend:TorchBackend",
        summary="eager PyTorch on transformers models; the reference (CPU, CUDA)",
    )

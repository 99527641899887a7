"""The Triton backend: fused GPU kernels in place of parts of the torch backend."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_backends(register: Register) -> None:
    """Register the backend ``triton``."""
    register(
        "triton",
        "apportion_backends.triton.backend:TritonBackend",
        summary="the torch backend with fused Triton kernels for the head and for shared prefixes (CUDA)",
    )

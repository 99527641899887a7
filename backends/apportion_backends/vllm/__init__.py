"""The backend for vLLM in this process."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_backends(register: Register) -> None:
    """Register the backend ``vllm``."""
    register("vllm", "apportion_backends.vllm.backend:VLLMBackend", summary="vLLM in this process, without a server")

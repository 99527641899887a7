"""The backend for models behind servers that speak OpenAI's completions API: vLLM, SGLang and others."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_backends(register: Register) -> None:
    """Register the backend ``openai``."""
    register(
        "openai",
        "apportion_backends.openai.backend:OpenAIBackend",
        summary="a model behind a server: vLLM, SGLang, or any completions API that scores given tokens",
    )

"""The backend for ONNX files: exports of ``apportion export``, and decoders that others exported."""

from __future__ import annotations

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register


@hookimpl
def apportion_register_backends(register: Register) -> None:
    """Register the backend ``onnxruntime``."""
    register(
        "onnxruntime",
        "apportion_backends.onnxruntime.backend:OnnxRuntimeBackend",
        summary="ONNX files in ONNX Runtime, without PyTorch in the scoring path (CPU, CUDA, DirectML, OpenVINO)",
    )

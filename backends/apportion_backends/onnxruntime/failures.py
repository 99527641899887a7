"""Errors of ONNX Runtime, in words of apportion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from apportion.errors import BatchTooLargeError, ScoreError

__all__ = ["translated"]

NO_MEMORY = ("allocate memory", "bad allocation", "out of memory", "bad_alloc")


@contextmanager
def translated() -> Iterator[None]:
    """Context in which errors of ONNX Runtime become those of apportion.

    Raises:
        BatchTooLargeError: memory ran out.
        ScoreError: the graph fails.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        text = " ".join(str(error).split())
        if any(words in text.lower() for words in NO_MEMORY):
            raise BatchTooLargeError(f"ONNX Runtime has no memory left: {text:.200}") from error
        raise ScoreError(f"The graph fails in ONNX Runtime: {text:.300}") from error

"""Counts of what any caller makes a model read, taken where tokens enter its first layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = ["Read", "counted"]


@dataclass(slots=True)
class Read:
    """Counts, padding included.

    Attributes:
        forwards: number of calls of the model.
        rows: number of sequences in these calls.
        tokens: number of tokens in these sequences.
    """

    forwards: int = 0
    rows: int = 0
    tokens: int = 0

    def reset(self) -> None:
        """Start counting from 0."""
        self.forwards = self.rows = self.tokens = 0


@contextmanager
def counted(model: nn.Module) -> Iterator[Read]:
    """Count what a model reads while the context is open.

    Counted at the first matrix of the first layer, not at the embedding, because Inseq perturbs embeddings.
    """
    read = Read()
    body = getattr(model, "base_model", model)
    first = next(module for module in body.modules() if isinstance(module, nn.Linear))

    def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        hidden: Tensor = inputs[0]
        read.forwards += 1
        read.rows += hidden.shape[0]
        read.tokens += hidden.numel() // hidden.shape[-1]

    handle = first.register_forward_pre_hook(see)
    try:
        yield read
    finally:
        handle.remove()

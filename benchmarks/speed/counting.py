"""Counts of what any caller makes a model read, taken where tokens enter its first layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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


class _Counter(TorchFunctionMode):
    """Counts products with one matrix, whoever computes them; the model has no hook, which could change how it is read.

    Args:
        weight: the matrix.
        read: the counts.
    """

    def __init__(self, weight: Tensor, read: Read) -> None:
        super().__init__()
        self._weight = weight
        self._read = read

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count a product with the matrix, and do what is asked for."""
        if len(args) > 1 and args[1] is self._weight and "linear" in str(func):
            hidden: Tensor = args[0]
            self._read.forwards += 1
            self._read.rows += hidden.shape[0]
            self._read.tokens += hidden.numel() // hidden.shape[-1]
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(model: nn.Module) -> Iterator[Read]:
    """Count what a model reads in this thread while the context is open.

    Counted at the first matrix of the first layer, not at the embedding, because Inseq perturbs embeddings.
    """
    read = Read()
    body = getattr(model, "base_model", model)
    first = next(module for module in body.modules() if isinstance(module, nn.Linear))
    with _Counter(first.weight, read):
        yield read

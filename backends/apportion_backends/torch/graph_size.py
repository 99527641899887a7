"""Memory that a forward pass keeps for its backward passes, measured on short prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["GraphSize"]

LENGTHS = (4, 8, 16)
TRANSIENT = 1.3
"""Memory of a backward pass on top of what is kept, as a factor."""


@dataclass(frozen=True, slots=True)
class GraphSize:
    """Bytes that are kept for a row, as a polynomial of its length: attention weights grow with its square.

    Attributes:
        per: bytes per row, per token, and per pair of tokens.
    """

    per: tuple[float, float, float]

    @classmethod
    def measured(cls, model: nn.Module, compute: Callable[[int], object]) -> GraphSize:
        """Measure three short forward passes.

        Args:
            model: its own weights do not count.
            compute: computes a differentiable forward pass over one row of this many tokens.
        """
        kept = [_kept_bytes(model, lambda length=length: compute(length)) for length in LENGTHS]  # type: ignore[misc]
        found = np.polynomial.polynomial.polyfit(LENGTHS, kept, 2)
        row, token, pair = (max(0.0, float(part)) for part in found)
        return cls((row, token, pair))

    def __call__(self, tokens: int) -> int:
        """Upper estimate of the bytes of a row of this many tokens, backward pass included."""
        row, token, pair = self.per
        return int(TRANSIENT * (row + token * tokens + pair * tokens * tokens))


def _kept_bytes(model: nn.Module, compute: Callable[[], object]) -> int:
    """Bytes of all tensors that the graph keeps, each storage once, without the model's own."""
    own = {_memory(tensor)[0] for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        place, size = _memory(tensor)
        if place not in own:
            kept[place] = size, tensor  # held, so that no other tensor gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = compute()
        del found
    return sum(size for size, _ in kept.values())


def _memory(tensor: Tensor) -> tuple[int, int]:
    """The place of a tensor's memory, and its size in bytes; those of the tensor itself if it is composed of others."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except RuntimeError:
        return id(tensor), tensor.numel() * tensor.itemsize

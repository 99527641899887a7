"""The cost model: which kernels replace PyTorch's operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from apportion_backends.triton.runtime import DTYPES

__all__ = ["Costs"]

LEAST_PREFIX = 512
"""Shared prefix tokens at which one kernel beats PyTorch's two attention calls and their merge. An estimate, not a
measurement."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Decides which kernels to use for a model.

    Attributes:
        dtype: dtype of the model's weights.
        always: use every kernel that gives the right numbers, for tests and benchmarks.
    """

    dtype: torch.dtype
    always: bool = False

    @property
    def head(self) -> bool:
        """True to fuse log-probabilities with the head's product.

        For half-precision weights, exact logits take PyTorch fp32 copies, slice by slice, and products without tensor
        cores; the kernel multiplies the weights as they are and accumulates in fp32. For fp32 weights both multiply
        alike, and PyTorch's product is faster.
        """
        return self.dtype in DTYPES and (self.always or self.dtype != torch.float32)

    @property
    def least_prefix(self) -> int | None:
        """The shortest shared prefix, in tokens, whose attention is fused; ``None`` for never.

        In fp32, a tile's queries, keys and sums do not fit into registers.
        """
        if self.dtype not in DTYPES:
            return None
        if self.always:
            return 1
        return None if self.dtype == torch.float32 else LEAST_PREFIX

"""When a kernel takes the place of PyTorch's operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from apportion_backends.triton.runtime import DTYPES

__all__ = ["Costs"]

LEAST_PREFIX = 512
"""Tokens of a shared prefix from which on copies of it cost more than a second kernel. Estimated, not measured."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost model: which kernels to use for a batch.

    Attributes:
        dtype: of the model's weights.
        always: use every kernel wherever it gives the right numbers, for tests and measurements.
    """

    dtype: torch.dtype
    always: bool = False

    @property
    def head(self) -> bool:
        """Whether log-probabilities are fused with the head's product.

        Of half-precision weights PyTorch must make fp32 copies, slice by slice, for logits that are exact enough, and
        then multiplies without tensor cores; the kernel multiplies what is there and sums in fp32. In fp32 both
        multiply the same way, and PyTorch's own product is the faster one.
        """
        return self.dtype in DTYPES and (self.always or self.dtype != torch.float32)

    def prefix(self, tokens: int, rows: int) -> bool:
        """Whether attention to a shared prefix is computed over one copy: long ones, read by more than one row.

        In fp32 a tile's queries, keys and sums do not fit into registers.
        """
        pays = self.dtype != torch.float32 and tokens >= LEAST_PREFIX and rows > 1
        return self.dtype in DTYPES and tokens > 0 and (self.always or pays)

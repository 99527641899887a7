"""When a kernel takes the place of PyTorch's operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from apportion_backends.triton.runtime import DTYPES

__all__ = ["Costs"]

LEAST_PREFIX = 512
"""Tokens of a shared prefix from which on one kernel beats two attentions and their merging by PyTorch. Estimated, not
measured."""


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

    @property
    def least_prefix(self) -> int | None:
        """Tokens that rows share from which on attention to them is fused with that to the rest; ``None`` for never.

        In fp32 a tile's queries, keys and sums do not fit into registers.
        """
        if self.dtype not in DTYPES:
            return None
        if self.always:
            return 1
        return None if self.dtype == torch.float32 else LEAST_PREFIX

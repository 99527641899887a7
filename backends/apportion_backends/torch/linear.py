"""Linear layers by oneDNN, which multiplies single-precision matrices faster than PyTorch does by itself on some CPUs.

On 2 cores of an AMD EPYC (AVX-512) the products of SmolLM2's layers with 256 tokens and more ran at 195 to 220 GFLOP/s,
and at 135 to 190 by ``torch.mm``, which calls MKL.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["OneDnnLinear", "linear", "multiplies"]


def linear(x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> Tensor:
    """``x @ weight.T + bias``, by oneDNN where it can. Its operator has no gradients."""
    if torch.is_grad_enabled() or not multiplies(x.device, x.dtype):
        return nn.functional.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class OneDnnLinear(nn.Linear):
    """A linear layer of a twin; its weights are those of the model's layer."""

    def forward(self, input: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """The same product."""
        return linear(input, self.weight, self.bias)


@cache
def multiplies(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch has such a product, and it is right; tried once.

    Only in single precision: the operator is one that PyTorch's compiler uses, and its name has no promise.
    """
    if device.type != "cpu" or dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return False
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((2, 3, 5), (7, 5), (7,)))
    try:
        with torch.inference_mode():
            for offset in (bias, None):
                found = torch.ops.mkldnn._linear_pointwise(x, weight, offset, "none", [], "")
                if not torch.allclose(found, nn.functional.linear(x, weight, offset), atol=1e-5):
                    return False
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return True

"""Products by oneDNN, which multiplies single-precision matrices faster than PyTorch does by itself on some CPUs.

On 2 cores of an AMD EPYC (AVX-512) the products of SmolLM2's layers with 256 tokens and more ran at 195 to 220 GFLOP/s,
and at 135 to 190 by ``torch.mm``, which calls MKL. oneDNN also applies an activation, or a factor, to what it has just
multiplied and still holds in the cache. The operators are those that PyTorch's compiler uses; their names have no
promise, so they are tried before they are used.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

__all__ = ["OneDnnGatedUnit", "OneDnnLinear", "exchange_products", "few_sizes", "linear", "multiplies"]


def linear(x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> Tensor:
    """``x @ weight.T + bias``, by oneDNN where it can. Its operators have no gradients."""
    if torch.is_grad_enabled() or not multiplies(x.device, x.dtype):
        return nn.functional.linear(x, weight, bias)
    return _product(x, weight, bias)


class OneDnnLinear(nn.Linear):
    """A linear layer of a twin; its weights are those of the model's layer."""

    def forward(self, input: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """The same product."""
        return linear(input, self.weight, self.bias)


class OneDnnGatedUnit(nn.Module):
    """``down(silu(gate(x)) · up(x))``, in which the activation and the factor are parts of products."""

    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B I"]:
        """Without gradients, as twins are used."""
        gate, up = self.gate_proj, self.up_proj
        gated = _product(x, gate.weight, gate.bias, "swish")
        binary = torch.ops.mkldnn._linear_pointwise.binary
        both: Tensor = binary(x, gated, up.weight, up.bias, "mul")
        return cast(Tensor, self.down_proj(both))


def exchange_products(twin: PreTrainedModel) -> None:
    """Let a twin multiply by oneDNN, which ``multiplies`` must have said."""
    right: dict[type, bool] = {}
    for module in twin.modules():
        if _is_gated_unit(module):
            kind = type(module)
            if kind not in right:
                right[kind] = _fuses(module)
            if right[kind]:
                module.__class__ = OneDnnGatedUnit
    for module in twin.modules():
        if _is_plain_linear(module):
            module.__class__ = OneDnnLinear


def few_sizes(rows: int) -> int:
    """The next of a few numbers of rows: more by 1 or 2 % where there are many.

    For each shape of a product oneDNN compiles code and keeps it, 0.4 to 1.1 MB, up to a thousand times and more: 2,048
    evaluations in batches of many sizes took 780 MiB.
    """
    step = 8 if rows <= 512 else 32
    return -(-rows // step) * step


@cache
def multiplies(device: torch.device, dtype: torch.dtype) -> bool:
    """True if this PyTorch multiplies such matrices by oneDNN, and the products are right."""
    if device.type != "cpu" or dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return False
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((2, 3, 5), (7, 5), (7,)))
    try:
        with torch.inference_mode():
            return all(
                torch.allclose(_product(x, weight, offset), nn.functional.linear(x, weight, offset), atol=1e-5)
                for offset in (bias, None)
            )
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    return found


def _is_plain_linear(module: nn.Module | None) -> bool:
    # Not what is derived from a linear layer, or computes its weights: those know better what to do.
    return type(module) is nn.Linear and module.weight.dtype == torch.float32


def _is_gated_unit(module: nn.Module) -> bool:
    """The form that Llama, Mistral, Qwen and many others give their feed-forward layers; hooks inside forbid it."""
    parts = dict(module.named_children())
    if set(parts) != {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return False
    activation = parts.pop("act_fn")
    passed_over = (parts["gate_proj"], parts["up_proj"], activation)
    return (
        isinstance(activation, nn.SiLU | type(ACT2FN["silu"]))
        and all(map(_is_plain_linear, parts.values()))
        and not any(part._forward_hooks or part._forward_pre_hooks for part in passed_over)
        and not any("forward" in vars(part) for part in (module, *passed_over))
    )


def _fuses(module: nn.Module) -> bool:
    """True if a module computes what its form suggests, checked on a few random numbers."""
    inner = cast(nn.Linear, module.gate_proj).in_features
    x = torch.randn(1, 3, inner, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            expected = module(x)
            found = OneDnnGatedUnit.forward(cast(OneDnnGatedUnit, module), x)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        return False
    return float((found - expected).abs().max()) <= 1e-4 * float(expected.std())

"""Products by oneDNN, which multiplies single-precision matrices faster than PyTorch does by itself on some CPUs.

On 2 cores of an AMD EPYC (AVX-512) the products of SmolLM2's layers with 256 tokens and more ran at 195 to 220 GFLOP/s,
and at 135 to 190 by ``torch.mm``, which calls MKL. oneDNN also applies an activation, or a factor, to a product that is
still in the cache. The operators are those that PyTorch's compiler uses. They have no stability promise, so they are
tried before they are used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["FusedProducts", "Partners", "few_sizes", "is_watched", "linear", "multiplies"]

Follower = Literal["silu", "mul"]
"""An operation on the result of a product that oneDNN can compute with it."""

LINEAR = torch._C._nn.linear
"""PyTorch's own function, which ``functional.linear`` is unless somebody replaced it."""

PLAIN = (Tensor, nn.Parameter)
"""Types of tensors without behaviour of their own."""


def linear(x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None) -> Tensor:
    """``x @ weight.T + bias``, by oneDNN where it can. Its operators have no gradients."""
    if torch.is_grad_enabled() or is_watched() or not multiplies(x.device, x.dtype):
        return functional.linear(x, weight, bias)
    return _product(x, weight, bias)


def is_watched() -> bool:
    """True if PyTorch's products are replaced, or shown to a mode of the caller: then they have to be used."""
    return functional.linear is not LINEAR or torch._C._len_torch_function_stack() > 0


def few_sizes(rows: int) -> int:
    """Round a number of rows up to one of a few; where there are many rows, by 1 or 2 %.

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
    shapes = ((2, 3, 5), (7, 5), (7,), (2, 3, 7))
    x, weight, bias, factor = (torch.randn(*shape, generator=draw) for shape in shapes)
    try:
        with torch.inference_mode():
            return all(
                torch.allclose(found, expected, atol=1e-5)
                for offset in (bias, None)
                for z in (functional.linear(x, weight, offset),)
                for found, expected in (
                    (_product(x, weight, offset), z),
                    (_product(x, weight, offset, "swish"), functional.silu(z)),
                    (_multiplied(x, factor, weight, offset), z * factor),
                )
            )
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


class Partners:
    """Weights whose products are followed by an operation that oneDNN can compute with them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], Follower]] = {}

    def follower(self, weight: Tensor) -> Follower | None:
        """The operation that is expected after a product with a weight."""
        known = self._known.get(id(weight))
        return known[1] if known is not None and known[0]() is weight else None

    def learn(self, weight: Tensor, follower: Follower) -> None:
        """Expect the operation after products with this weight."""
        key = id(weight)
        self._known[key] = (weakref.ref(weight, lambda _: self._known.pop(key, None)), follower)

    def forget(self, weight: Tensor) -> None:
        """Expect nothing after products with this weight."""
        self._known.pop(id(weight), None)


@dataclass(slots=True)
class _Product:
    """A product that was just computed, with what is expected to follow it, or ``None`` if that is to be learned."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    out: Tensor
    follower: Follower | None

    def alone(self) -> Tensor:
        """The product without what follows."""
        return _product(self.x, self.weight, self.bias)


class FusedProducts:
    """Linear layers of one forward pass, by oneDNN; ``silu(gate(x)) · up(x)`` is computed within the two products.

    An operation is computed with a product if it followed the product with the same weight in a forward pass that
    learned. If another one follows this time, the product is put right before anybody reads it; if somebody still holds
    the product after the operation, such as a hook, it is put right too. So every tensor has the value that it would
    have without oneDNN.

    Args:
        partners: the operation that follows each product.
        learns: look at what follows each product, and compute nothing with it.

    Attributes:
        waits: the next operation has to be shown to this object, whatever it is; else only products have to.
    """

    def __init__(self, partners: Partners, *, learns: bool = False) -> None:
        self.waits = False
        self._partners = partners
        self._learns = learns
        self._last: _Product | None = None
        self._gate: tuple[Tensor, weakref.ref[Tensor]] | None = None
        self._passed_over: tuple[_Product, weakref.ref[Tensor]] | None = None

    def __call__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
        """The result of an operation, if it is a product or was computed with one; ``None`` for any other operation."""
        self.waits = False
        if self._passed_over is not None:
            self._check_passed_over()
        last, self._last = self._last, None
        if last is not None:
            found = self._followed(last, function, args, kwargs)
            if found is not None:
                return found
        if function is functional.linear and _supported(*args, **kwargs):
            return self._multiply(*args, **kwargs)
        return None

    def finish(self) -> None:
        """Put right what is still on expectation; to be called after the forward pass."""
        if self._passed_over is not None:
            self._check_passed_over()
        if self._last is not None and self._last.follower is not None:
            self._put_right(self._last)
        self._last = self._gate = None

    def _multiply(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        follower = None if self._learns else self._partners.follower(weight)
        if follower == "silu":
            out = _product(input, weight, bias, "swish")
        elif follower == "mul" and (gate := self._gated(input)) is not None and gate.shape[-1] == len(weight):
            out = _multiplied(input, gate, weight, bias)
        else:
            follower, out = None, _product(input, weight, bias)
        if follower is not None or self._learns:
            self._last = _Product(input, weight, bias, out, follower)
            self.waits = True
        return out

    def _gated(self, x: Tensor) -> Tensor | None:
        """The activation of the last product, if that was one of ``x``."""
        return self._gate[1]() if self._gate is not None and self._gate[0] is x else None

    def _followed(
        self, last: _Product, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor | None:
        """The result of an operation that oneDNN computes with the last product; ``None`` for any other one."""
        follower: Follower | None = None
        if function is functional.silu and args[0] is last.out and not (kwargs.get("inplace") or True in args[1:]):
            follower = "silu"
        elif function in PRODUCTS and not kwargs and args[1] is last.out and args[0] is self._gated(last.x):
            follower = "mul"
        if last.follower is not None and follower != last.follower:
            self._put_right(last)
        if follower is None or last.follower not in (None, follower):
            return None
        if last.follower is None:
            self._partners.learn(last.weight, follower)
            result: Tensor = function(*args, **kwargs)
        else:
            # Another object, so that one can see if somebody holds the product itself.
            result = last.out.view(last.out.shape)
            self._passed_over = (last, weakref.ref(last.out))
            self.waits = True
            last.out = result
        self._gate = (last.x, weakref.ref(result)) if follower == "silu" else None
        return result

    def _put_right(self, product: _Product) -> None:
        self._partners.forget(product.weight)
        product.out.copy_(product.alone())

    def _check_passed_over(self) -> None:
        """Put a product right that is still held after the operation that was computed with it."""
        assert self._passed_over is not None
        product, held = self._passed_over
        self._passed_over = None
        out = held()
        if out is not None:
            self._partners.forget(product.weight)
            out.set_(product.alone())  # type: ignore[call-overload]


PRODUCTS = frozenset({torch.mul, Tensor.mul, Tensor.__mul__})


def _supported(input: Any, weight: Any, bias: Any = None) -> bool:
    """True for plain single-precision matrices in memory."""
    return (
        type(input) in PLAIN
        and type(weight) in PLAIN
        and weight.dtype == input.dtype == torch.float32
        and weight.ndim == 2
        and weight.device.type == input.device.type == "cpu"
        and weight.layout == input.layout == torch.strided
        and (bias is None or (type(bias) in PLAIN and bias.dtype == torch.float32))
        and input.numel() > 0
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    return found


def _multiplied(x: Tensor, factor: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, factor, weight, bias, "mul")
    return found

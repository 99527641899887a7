"""Rules of relevance propagation as changes of gradients: relevance is a tensor times the changed gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["identity_rule", "relevance", "uniform_rule", "watched"]

See = Callable[[Tensor, Tensor], None]
"""Receives a tensor and its changed gradient, in each backward pass."""


def identity_rule(x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``y``, all of whose relevance goes to the element of ``x`` in the same place.

    Args:
        x: input of an element-wise function, or of a normalisation.
        y: its output, of the same shape.
        bias: what was added to the output, if anything; it keeps its own relevance.
    """
    found: Tensor = _Identity.apply(x, y.detach(), None if bias is None else bias.detach())
    return found


def uniform_rule(product: Tensor) -> Tensor:
    """Return a product whose two factors share its relevance equally.

    The gradient of a product gives all of it to each of them.
    """
    found: Tensor = _Watched.apply(product, None, 0.5)
    return found


def watched(x: Tensor, see: See, factor: float = 1.0) -> Tensor:
    """Return ``x``, whose relevance is multiplied by a factor, and shown to ``see`` in each backward pass."""
    found: Tensor = _Watched.apply(x, see, factor)
    return found


def relevance(x: Tensor, gradient: Tensor) -> Tensor:
    """Sum of the relevance of all elements of a tensor, in float64."""
    return (_wide(x) * _wide(gradient)).sum(dtype=torch.float64)


class _Identity(torch.autograd.Function):
    """The gradient of y = x · (y / x), where the quotient is a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, y, bias)
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, y, bias = ctx.saved_tensors
        kept = _wide(y) if bias is None else _wide(y) - _wide(bias)
        # An input of 0 has no relevance to pass on.
        quotient = torch.where(x == 0, 0.0, kept / _wide(x))
        return (_wide(gradient) * quotient).to(gradient.dtype), None, None


class _Watched(torch.autograd.Function):
    """The gradient times a factor.

    Tensors saved by a function, unlike those in a closure, are not kept where layers are computed again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, see: See | None, factor: float) -> Tensor:
        ctx.see, ctx.factor = see, factor
        if see is not None:
            ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        new = gradient * ctx.factor
        if ctx.see is not None:
            ctx.see(*ctx.saved_tensors, new)
        return new, None, None


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

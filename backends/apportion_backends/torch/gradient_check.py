"""Gradients of models that other packages compute with: compared with finite differences, once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["computed_by_torch", "gradient_is_right"]

TRUSTED = ("torch", "transformers", "peft", "accelerate")
"""Packages whose operations have gradients. Kernels for quantised weights may lack them without an error."""
STEPS = (1e-2, 1e-3)
"""Relative sizes of the steps; experts that are chosen at a point differ beyond it."""
TOLERANCES = {torch.float64: 0.02, torch.float32: 0.1}
"""Relative error allowed; in half precision, differences are rounded."""
ROUNDED = 0.5
DIRECTIONS = 8


def computed_by_torch(model: nn.Module) -> bool:
    """True if all weights are plain floating-point tensors, and all modules are of packages with gradients."""
    plain = all(type(p) in (Tensor, nn.Parameter) and p.is_floating_point() for p in model.parameters())
    return plain and all(type(m).__module__.partition(".")[0] in TRUSTED for m in model.modules())


def gradient_is_right(
    compute: Callable[[Float[Tensor, "B P D"]], Float[Tensor, "B V"]], point: Float[Tensor, "1 P D"], dtype: torch.dtype
) -> bool:
    """Compare slopes along random directions with finite differences.

    Args:
        compute: computes the logits after each prompt, given its embeddings.
        point: embeddings of a prompt.
        dtype: dtype that the model computes in.
    """
    draw = torch.Generator().manual_seed(0)
    leaf = point.detach().clone().requires_grad_()
    logits = compute(leaf)
    weights = torch.randn(logits.shape[-1], generator=draw).to(logits)
    if not logits.requires_grad:
        return False
    (slope,) = torch.autograd.grad((logits * weights).sum(), leaf)
    directions = torch.randn(DIRECTIONS, *point.shape[1:], generator=draw).to(point)
    directions *= point.norm() / directions.flatten(1).norm(dim=1)[:, None, None]
    predicted = (slope * directions).flatten(1).sum(1).double()
    allowed = TOLERANCES.get(dtype, ROUNDED)
    for size in STEPS if dtype in TOLERANCES else (10 * STEPS[0],):
        with torch.no_grad():
            up, down = ((compute(point + side * size * directions) * weights).sum(-1) for side in (1, -1))
        found = (up - down).double() / (2 * size)
        if float((found - predicted).norm()) <= allowed * float(found.norm()):
            return True
    return False

"""Rounding of weights to 8 bits, each column so that later weights make up for the errors of earlier ones."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

__all__ = ["LEVELS", "rounded"]

LEVELS = 127
"""Largest magnitude of a rounded number."""
LEAST = 1e-12
"""Smallest maximum of a column, so that columns of zeros can be divided by it."""
DAMPING = 0.1
"""Added to the diagonal of the moments, relative to its mean. On SmolLM2, 0.1 gave a rank correlation of attributions
of 0.9923, 0.01 one of 0.9919, and rounding to the nearest number one of 0.9889."""
BLOCK = 128


def rounded(
    matrix: Float[np.ndarray, "I O"], moments: Float[np.ndarray, "I I"] | None
) -> tuple[Int[np.ndarray, "I O"], Float[np.ndarray, " O"]]:
    """Numbers of 8 bits and the scale of each column.

    With second moments of the inputs, weights are rounded one input after the other, and the error of each is moved to
    the inputs that are still to come, so that products change least: GPTQ (Frantar et al., arXiv 2210.17323).

    Args:
        matrix: weight of a product ``x @ matrix``.
        moments: sum of ``x.T @ x`` over many inputs; ``None`` to round every number by itself.
    """
    scale = np.maximum(np.abs(matrix).max(0), LEAST) / LEVELS
    if moments is None:
        return np.rint(matrix / scale).astype(np.int8), scale.astype(np.float32)
    square = torch.from_numpy(moments.astype(np.float64))
    square.diagonal().add_(DAMPING * square.diagonal().mean().clamp(min=LEAST))
    # Inputs that matter most come first, while many can make up for them.
    order = torch.argsort(-square.diagonal())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(square[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    left = torch.from_numpy(np.ascontiguousarray(matrix)).float()[order]
    size, found = torch.from_numpy(scale).float(), torch.empty(matrix.shape, dtype=torch.int8)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = torch.empty(end - start, left.shape[1])
        for i in range(start, end):
            number = (left[i] / size).round().clamp(-LEVELS, LEVELS)
            found[order[i]] = number.to(torch.int8)
            errors[i - start] = (left[i] - number * size) / factor[i, i]
            left[i + 1 : end] -= factor[i, i + 1 : end, None] * errors[i - start]
        left[end:] -= factor[start:end, end:].T @ errors
    return found.numpy(), scale.astype(np.float32)

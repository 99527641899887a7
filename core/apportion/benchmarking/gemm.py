"""How fast this machine multiplies matrices, now."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

__all__ = ["SHAPES", "gemm_rate"]

SHAPES = ((512, 576, 1536), (1024, 576, 1536), (1024, 1536, 576), (1024, 1024, 1024), (2048, 2048, 2048))
"""Rows, inner width and columns: those of a small model's layers, and two square ones."""
TRY_SECONDS = 0.02
"""What a try takes at least: a small product is repeated, so that neither the clock's grain nor a launch matters."""


def gemm_rate(
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    tries: int = 5,
) -> float:
    """Operations per second: for each shape the best of some tries, and of these the median.

    Args:
        device: where.
        dtype: of the matrices; of a model whose speed is compared with it.
        shapes: of the products.
        tries: for each shape.
    """
    return statistics.median(_best(device, dtype, shape, tries) for shape in shapes)


def _best(device: str, dtype: torch.dtype, shape: tuple[int, int, int], tries: int) -> float:
    rows, inner, columns = shape
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(rows, inner, generator=draw).to(device, dtype)
    b = torch.randn(inner, columns, generator=draw).to(device, dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)

    def seconds(repeats: int) -> float:
        _wait(out)
        started = time.perf_counter()
        for _ in range(repeats):
            torch.mm(a, b, out=out)
        _wait(out)
        return time.perf_counter() - started

    seconds(1)  # the first one sets things up
    repeats = max(1, round(TRY_SECONDS / seconds(1)))
    flops = repeats * 2 * rows * inner * columns
    return max(flops / seconds(repeats) for _ in range(tries))


def _wait(tensor: torch.Tensor) -> None:
    """Until the device has done what it was given."""
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)

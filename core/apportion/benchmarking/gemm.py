"""The rate at which this machine currently multiplies matrices."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

__all__ = ["SHAPES", "gemm_rate"]

Product = Callable[[], torch.Tensor]

SHAPES = ((512, 576, 1536), (1024, 576, 1536), (1024, 1536, 576), (1024, 1024, 1024), (2048, 2048, 2048))
"""Rows, inner dimension and columns of the products: those of a small model's layers, and two square ones."""
TRY_SECONDS = 0.02
"""Minimum duration of a try; small products are repeated, so that clock resolution and launches do not matter."""


def gemm_rate(
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    onednn: bool = False,
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    tries: int = 5,
) -> float:
    """Operations per second: the median over shapes of the best of several tries.

    Args:
        device: device to measure.
        dtype: dtype of the matrices; use that of the model to compare with.
        onednn: use oneDNN instead of ``torch.mm``; only on a CPU, in single precision.
        shapes: shapes of the products.
        tries: number of tries per shape.
    """
    product = _by_onednn if onednn else _by_torch
    return statistics.median(_best(product(device, dtype, shape), shape, tries) for shape in shapes)


def _by_torch(device: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> Product:
    rows, inner, columns = shape
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(rows, inner, generator=draw).to(device, dtype)
    b = torch.randn(inner, columns, generator=draw).to(device, dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _by_onednn(device: str, dtype: torch.dtype, shape: tuple[int, int, int]) -> Product:
    rows, inner, columns = shape
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(rows, inner, generator=draw).to(device, dtype)
    weight = torch.randn(columns, inner, generator=draw).to(device, dtype)
    return lambda: torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], "")


def _best(product: Product, shape: tuple[int, int, int], tries: int) -> float:
    rows, inner, columns = shape

    def seconds(repeats: int) -> float:
        _wait(product())
        started = time.perf_counter()
        for _ in range(repeats):
            out = product()
        _wait(out)
        return time.perf_counter() - started

    seconds(1)  # the first product includes one-time setup
    repeats = max(1, round(TRY_SECONDS / seconds(1)))
    flops = repeats * 2 * rows * inner * columns
    return max(flops / seconds(repeats) for _ in range(tries))


def _wait(tensor: torch.Tensor) -> None:
    """Wait until the device has finished."""
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)

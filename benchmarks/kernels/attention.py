"""Attention of N rows with a shared prefix: the kernel, and PyTorch's attention with one copy per row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from benchmarks.kernels.timing import Contender, measure
from torch import Tensor
from torch.nn import functional

from apportion_backends.triton.shared_prefix_attention import (
    shared_prefix_attention,
    shared_prefix_attention_reference,
)

__all__ = ["CONTENDERS", "SHAPES", "TINY", "AttentionShape", "compare_attention"]


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Numbers of rows, prefix and suffix tokens; heads of Llama 3 8B."""

    rows: int
    prefix: int
    suffix: int = 64
    heads: int = 32
    groups: int = 8
    channels: int = 128
    dtype: torch.dtype = torch.bfloat16


SHAPES = tuple(AttentionShape(rows, prefix) for prefix in (512, 2048, 8192) for rows in (16, 128, 512))
CONTENDERS = ("apportion shared_prefix_attention", "SDPA, keys and values copied")
TINY = (AttentionShape(3, 40, 5, 4, 2, 16, torch.float32),)


def compare_attention(shape: AttentionShape, device: str) -> Iterator[Contender]:
    """Time the kernel, then PyTorch."""
    draw = torch.Generator(device).manual_seed(0)

    def made(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=draw, device=device).to(shape.dtype)

    query = made(shape.rows, shape.heads, shape.suffix, shape.channels)
    own = [made(shape.rows, shape.groups, shape.suffix, shape.channels) for _ in range(2)]
    common = [made(shape.groups, shape.prefix, shape.channels) for _ in range(2)]
    seen = torch.ones(shape.suffix, shape.prefix + shape.suffix, dtype=torch.bool, device=device).tril(shape.prefix)

    def copied() -> Tensor:
        keys, values = (
            torch.cat([far.expand(shape.rows, -1, -1, -1), near], 2) for far, near in zip(common, own, strict=True)
        )
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=seen, enable_gqa=True)

    def fused() -> Tensor:
        return shared_prefix_attention(query, *own, *common)

    some = slice(0, 2)
    exact = shared_prefix_attention_reference(
        query[some].double(), *(part[some].double() for part in own), *(part.double() for part in common)
    )
    for name, call in zip(CONTENDERS, (fused, copied), strict=True):
        try:
            error = float((call()[some].double() - exact).abs().max())
            yield Contender(name, measure(call, device), error)
        except RuntimeError as failure:
            yield Contender(name, None, note=f"{type(failure).__name__}: {str(failure).splitlines()[0]:.80}")
        finally:
            if device != "cpu":
                torch.cuda.empty_cache()

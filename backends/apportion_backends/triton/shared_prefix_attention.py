"""Attention of many rows to one copy of their shared prefix, and causally to each row's own suffix.

The first kernel handles the queries of all rows together, so the prefix's keys and values are read once per block of
queries and never copied. The second continues with each row's own keys: attention to two sets of keys is merged with
their log-sum-exps (Hydragen, Juravsky et al., arXiv 2402.05099). Query heads that share a head of keys, as in
grouped-query attention, are rows of one tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from apportion_backends.triton.runtime import DTYPES, interpreting, launching, power_of_two, require_device, upcasts

__all__ = ["shared_prefix_attention", "shared_prefix_attention_reference"]

MOST_CHANNELS = 256
"""Channels of the largest supported head: a tile's queries, keys and sums stay on the chip."""


@dataclass(frozen=True, slots=True)
class _Tiles:
    queries: int
    keys: int
    warps: int
    stages: int

    @classmethod
    def of(cls, channels: int, dtype: torch.dtype) -> _Tiles:
        if interpreting():
            return cls(64, 32, 4, 1)
        if dtype.itemsize > 2:
            return cls(64, 32, 4, 1) if channels <= 128 else cls(32, 32, 4, 1)
        return cls(128, 64, 8, 2) if channels <= 128 else cls(64, 32, 8, 2)


@triton.jit
def _attend(
    q, key, value, highest, total, found, visible, first, after, key_stride, value_stride, channels, scaling,
    UPCAST: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Continue an online softmax over keys ``first`` to ``after`` - 1; a query sees the keys before its ``visible``."""
    inner = tl.arange(0, BLOCK_D)
    inside = inner < channels
    for start in range(first, after, BLOCK_N):
        places = start + tl.arange(0, BLOCK_N)
        there = places < after
        at = places.to(tl.int64)
        k = tl.load(key + at[None, :] * key_stride + inner[:, None], mask=there[None, :] & inside[:, None], other=0.0)
        v = tl.load(
            value + at[:, None] * value_stride + inner[None, :], mask=there[:, None] & inside[None, :], other=0.0
        )
        if UPCAST:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, k, input_precision="tf32x3") * scaling
        scores = tl.where(places[None, :] < visible[:, None], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        # A query that has seen no key yet has no maximum.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp(highest - base)
        p = tl.exp(scores - base[:, None])
        total = total * shrink + tl.sum(p, 1)
        found = tl.dot(p.to(v.dtype), v, found * shrink[:, None], input_precision="tf32x3")
        highest = higher
    return highest, total, found


@triton.jit
def _prefix_kernel(
    query, key, value, lengths, out, sums,
    n_queries, n_suffix, n_prefix, channels, n_heads,
    q_row, q_head, q_token, k_head, k_token, v_head, v_token, scaling,
    SHARED: tl.constexpr, UPCAST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Attention to the prefix, for a block of queries of any rows and of the heads that share keys."""
    group = tl.program_id(1)
    flat = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    asked = flat < n_queries
    head = group * SHARED + flat % SHARED
    token = (flat // SHARED) % n_suffix
    row = (flat // SHARED // n_suffix).to(tl.int64)
    inner = tl.arange(0, BLOCK_D)
    cells = asked[:, None] & (inner < channels)[None, :]
    q = tl.load(
        query + (row * q_row + head * q_head + token * q_token)[:, None] + inner[None, :], mask=cells, other=0.0
    )
    if UPCAST:
        q = q.to(tl.float32)
    visible = tl.load(lengths + row, mask=asked, other=0)
    highest, total, found = _attend(
        q, key + group * k_head, value + group * v_head,
        tl.full([BLOCK_M], float("-inf"), dtype=tl.float32), tl.zeros([BLOCK_M], dtype=tl.float32),
        tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32), visible, 0, tl.minimum(tl.max(visible, 0), n_prefix),
        k_token, v_token, channels, scaling, UPCAST, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    seen = total > 0.0
    divisor = tl.where(seen, total, 1.0)
    at = (row * n_heads + head) * n_suffix + token
    tl.store(out + at[:, None] * channels + inner[None, :], found / divisor[:, None], mask=cells)
    tl.store(sums + at, tl.where(seen, highest + tl.log(divisor), float("-inf")), mask=asked)


@triton.jit
def _suffix_kernel(
    query, key, value, far, far_sums, out,
    n_suffix, channels, n_heads,
    q_row, q_head, q_token, k_row, k_head, k_token, v_row, v_head, v_token, scaling,
    SHARED: tl.constexpr, UPCAST: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Causal attention to a row's own keys, for a block of its queries, continuing from the prefix."""
    groups = n_heads // SHARED
    row = (tl.program_id(1) // groups).to(tl.int64)
    group = tl.program_id(1) % groups
    flat = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    asked = flat < n_suffix * SHARED
    head = group * SHARED + flat % SHARED
    token = flat // SHARED
    inner = tl.arange(0, BLOCK_D)
    cells = asked[:, None] & (inner < channels)[None, :]
    q = tl.load(
        query + row * q_row + (head * q_head + token * q_token)[:, None] + inner[None, :], mask=cells, other=0.0
    )
    if UPCAST:
        q = q.to(tl.float32)
    at = (row * n_heads + head) * n_suffix + token
    highest = tl.load(far_sums + at, mask=asked, other=float("-inf"))
    found = tl.load(far + at[:, None] * channels + inner[None, :], mask=cells, other=0.0)
    last = tl.minimum((tl.program_id(0) * BLOCK_M + BLOCK_M - 1) // SHARED + 1, n_suffix)
    highest, total, found = _attend(
        q, key + row * k_row + group * k_head, value + row * v_row + group * v_head,
        highest, tl.where(highest == float("-inf"), 0.0, 1.0), found, token + 1, 0, last,
        k_token, v_token, channels, scaling, UPCAST, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    found = found / tl.where(asked, total, 1.0)[:, None]
    tl.store(out + at[:, None] * channels + inner[None, :], found.to(out.dtype.element_ty), mask=cells)


def shared_prefix_attention(
    query: Float[Tensor, "B H S D"],
    key: Float[Tensor, "B G S D"],
    value: Float[Tensor, "B G S D"],
    prefix_key: Float[Tensor, "G P D"],
    prefix_value: Float[Tensor, "G P D"],
    prefix_lengths: Int[Tensor, " B"] | None = None,
    *,
    scaling: float | None = None,
) -> Float[Tensor, "B H S D"]:
    """Causal attention of rows that share a prefix, or part of it, followed by their own suffixes.

    Suffixes are padded on the right, where causal queries do not look.

    Args:
        query: queries of the suffixes; fp32, bf16 or fp16. H is a multiple of G, and D is at most 256.
        key: keys of the suffixes.
        value: values of the suffixes.
        prefix_key: keys of the prefix, one copy.
        prefix_value: values of the prefix, one copy.
        prefix_lengths: prefix tokens that each row sees, 0 to P; ``None`` for all of them.
        scaling: factor of attention scores; ``None`` for 1/√D.

    Returns:
        Attention outputs of the suffixes, in the dtype of ``query``. There is no gradient.

    Raises:
        ValueError: shapes, dtypes or devices do not match, a gradient is required, or a length is out of range. Only
            the interpreter checks lengths: on a GPU the check would wait for the device.
    """
    _check(query, key, value, prefix_key, prefix_value, prefix_lengths)
    rows, heads, suffix, channels = query.shape
    groups, prefix = prefix_key.shape[:2]
    shared = heads // groups
    scaling = channels**-0.5 if scaling is None else scaling
    out = torch.empty(rows, heads, suffix, channels, dtype=query.dtype, device=query.device)
    if not out.numel():
        return out
    if prefix_lengths is None:
        prefix_lengths = torch.full((rows,), prefix, dtype=torch.int32, device=query.device)
    prefix_lengths = prefix_lengths.contiguous()
    far = torch.empty(out.shape, dtype=torch.float32, device=query.device)
    sums = torch.empty(out.shape[:3], dtype=torch.float32, device=query.device)
    tiles = _Tiles.of(channels, query.dtype)
    constants = {
        "SHARED": shared,
        "UPCAST": upcasts(query.dtype),
        "BLOCK_M": tiles.queries,
        "BLOCK_N": tiles.keys,
        "BLOCK_D": max(16, power_of_two(channels)),
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }
    n_queries = rows * suffix * shared
    with launching():
        _prefix_kernel[(math.ceil(n_queries / tiles.queries), groups)](
            query, prefix_key, prefix_value, prefix_lengths, far, sums, n_queries, suffix, prefix, channels, heads,
            *query.stride()[:3], *prefix_key.stride()[:2], *prefix_value.stride()[:2], scaling, **constants,
        )  # fmt: skip
        _suffix_kernel[(math.ceil(suffix * shared / tiles.queries), rows * groups)](
            query, key, value, far, sums, out, suffix, channels, heads,
            *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], scaling, **constants,
        )  # fmt: skip
    return out


def shared_prefix_attention_reference(
    query: Float[Tensor, "B H S D"],
    key: Float[Tensor, "B G S D"],
    value: Float[Tensor, "B G S D"],
    prefix_key: Float[Tensor, "G P D"],
    prefix_value: Float[Tensor, "G P D"],
    prefix_lengths: Int[Tensor, " B"] | None = None,
    *,
    scaling: float | None = None,
) -> Float[Tensor, "B H S D"]:
    """The same in plain PyTorch, with a copy of the prefix per row; in fp32, or in fp64 for fp64 inputs."""
    rows, heads, suffix, channels = query.shape
    prefix = prefix_key.shape[1]
    dtype = torch.promote_types(query.dtype, torch.float32)
    keys, values = (
        torch.cat([far.expand(rows, -1, -1, -1), near], 2).to(dtype).repeat_interleave(heads // far.shape[0], 1)
        for far, near in ((prefix_key, key), (prefix_value, value))
    )
    lengths = torch.full((rows,), prefix, device=query.device) if prefix_lengths is None else prefix_lengths
    places = torch.arange(prefix, device=query.device)
    before = (places < lengths[:, None])[:, None].expand(-1, suffix, -1)
    own = torch.ones(suffix, suffix, dtype=torch.bool, device=query.device).tril().expand(rows, -1, -1)
    scores = query.to(dtype) @ keys.transpose(2, 3) * (channels**-0.5 if scaling is None else scaling)
    visible = torch.cat([before, own], -1)[:, None]
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return (weights @ values).to(query.dtype)


def _check(
    query: Tensor, key: Tensor, value: Tensor, prefix_key: Tensor, prefix_value: Tensor, lengths: Tensor | None
) -> None:
    tensors = (query, key, value, prefix_key, prefix_value)
    require_device(*tensors, lengths)
    rows, heads, suffix, channels = query.shape if query.ndim == 4 else (0, 0, 0, 0)
    groups, prefix = prefix_key.shape[:2] if prefix_key.ndim == 3 else (0, 0)
    own, common = (rows, groups, suffix, channels), (groups, prefix, channels)
    if (
        query.ndim != 4
        or prefix_key.ndim != 3
        or any(tuple(part.shape) != own for part in (key, value))
        or any(tuple(part.shape) != common for part in (prefix_key, prefix_value))
        or not groups
        or heads % groups
        or not channels
    ):
        raise ValueError(
            "query must be [B, H, S, D], key and value [B, G, S, D], prefix_key and prefix_value [G, P, D], and H a "
            f"multiple of G; these are {', '.join(str(list(part.shape)) for part in tensors)}."
        )
    if channels > MOST_CHANNELS:
        raise ValueError(f"Heads of {channels} channels are too large; the limit is {MOST_CHANNELS}.")
    if len({part.dtype for part in tensors}) != 1 or query.dtype not in DTYPES:
        raise ValueError(f"All tensors must have one dtype of {', '.join(map(str, DTYPES))}.")
    if torch.is_grad_enabled() and any(part.requires_grad for part in tensors):
        raise ValueError("shared_prefix_attention has no gradient; call it under torch.no_grad() or in inference mode.")
    if channels > 1 and any(part.stride(-1) != 1 for part in tensors):
        raise ValueError("The last dimension of every tensor must be contiguous.")
    if lengths is None:
        return
    if tuple(lengths.shape) != (rows,) or lengths.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"prefix_lengths must be int64 or int32 [B] = [{rows}]; they are {lengths.dtype} {list(lengths.shape)}."
        )
    if interpreting() and rows and not (int(lengths.min()) >= 0 and int(lengths.max()) <= prefix):
        raise ValueError(f"prefix_lengths must be between 0 and {prefix}.")

"""Log-probabilities of target tokens, fused with the product of hidden states and the head's weights.

Each program walks a slice of the vocabulary for a block of rows and keeps a running maximum and a running sum, in fp32
(the online softmax of Milakov and Gimelshein, arXiv 1805.02867); the targets' own logits are one product for each row,
and a last kernel merges the slices. Logits exist one tile at a time, in registers. Nothing is added atomically, so that
results repeat bit by bit. The idea of never writing logits is Cut Cross-Entropy's (Wijmans et al., arXiv 2411.09009);
the code is our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from apportion_backends.triton.runtime import DTYPES, interpreting, launching, power_of_two, require_device, upcasts
from apportion_backends.triton.tiles import Tiles

__all__ = ["HeadScores", "linear_logprob", "linear_logprob_reference"]

MERGED_ROWS = 64
"""Rows whose slices one program merges."""
TARGET_ROWS, TARGET_CHANNELS = 16, 128
"""Rows whose targets' logits one program computes, and how much of them at once."""
SLOPES_BYTES = 64 * 2**20
"""Memory for the derivatives of a slice of the vocabulary, in fp32."""
MOST_TOP = 32
"""The running list of the largest logits is held in registers."""


@dataclass(frozen=True, slots=True)
class HeadScores:
    """What the head says of each row, in fp32.

    Attributes:
        log_prob: of the target, in nats.
        logit: of the target, after soft cap and temperature.
        entropy: of the distribution, in nats; if asked for.
        top_logits: the largest logits, in falling order; if asked for.
        top_ids: their tokens.
    """

    log_prob: Float[Tensor, " R"]
    logit: Float[Tensor, " R"]
    entropy: Float[Tensor, " R"] | None = None
    top_logits: Float[Tensor, "R k"] | None = None
    top_ids: Int[Tensor, "R k"] | None = None


@triton.jit
def _products(
    hidden, weight, rows, columns, n_rows, n_columns, width, hidden_stride, weight_stride,
    EVEN: tl.constexpr, UPCAST: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A tile of hidden states times weights. Beyond the last row or column the last one is read again."""
    of_row = hidden + tl.minimum(rows, n_rows - 1).to(tl.int64)[:, None] * hidden_stride
    of_column = weight + tl.minimum(columns, n_columns - 1).to(tl.int64)[None, :] * weight_stride
    found = tl.zeros([BLOCK_R, BLOCK_V], dtype=tl.float32)
    for start in range(0, width, BLOCK_D):
        inner = start + tl.arange(0, BLOCK_D)
        if EVEN:
            h = tl.load(of_row + inner[None, :])
            w = tl.load(of_column + inner[:, None])
        else:
            h = tl.load(of_row + inner[None, :], mask=(inner < width)[None, :], other=0.0)
            w = tl.load(of_column + inner[:, None], mask=(inner < width)[:, None], other=0.0)
        if UPCAST:
            h = h.to(tl.float32)
            w = w.to(tl.float32)
        found = tl.dot(h, w, found, input_precision="tf32x3")
    return found


@triton.jit
def _offset_and_capped(found, bias, columns, n_columns, soft_cap, HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr):
    """Products of the given columns to logits, before the temperature."""
    if HAS_BIAS:
        found += tl.load(bias + tl.minimum(columns, n_columns - 1)).to(tl.float32)
    if HAS_CAP:
        # tanh(x) = 2 sigmoid(2x) - 1, which the interpreter knows too.
        found = soft_cap * (2.0 * tl.sigmoid(2.0 * found / soft_cap) - 1.0)
    return found


@triton.jit
def _slices_kernel(
    hidden, weight, bias, maxima, sums, weighted_sums, top_logits, top_ids,
    n_rows, vocabulary, width, hidden_stride, weight_stride, slice_size, inverse_temperature, soft_cap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, ENTROPY: tl.constexpr, TOP: tl.constexpr,
    EVEN: tl.constexpr, UPCAST: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One slice of the vocabulary for one block of rows. The temperature is left to the end, as it changes no order."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    part = tl.program_id(1)
    row_there = rows < n_rows
    first = part * slice_size
    end = tl.minimum(first + slice_size, vocabulary)
    largest = tl.full([BLOCK_R], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_R], dtype=tl.float32)
    weighted = tl.zeros([BLOCK_R], dtype=tl.float32)
    to_base_2 = inverse_temperature * 1.4426950408889634
    if TOP > 0:
        tops = tl.full([BLOCK_R, TOP], float("-inf"), dtype=tl.float32)
        top_columns = tl.zeros([BLOCK_R, TOP], dtype=tl.int32)
    for start in range(first, end, BLOCK_V):
        columns = start + tl.arange(0, BLOCK_V)
        z = _products(
            hidden, weight, rows, columns, n_rows, end, width, hidden_stride, weight_stride,
            EVEN, UPCAST, BLOCK_R, BLOCK_V, BLOCK_D,
        )  # fmt: skip
        z = _offset_and_capped(z, bias, columns[None, :], end, soft_cap, HAS_BIAS, HAS_CAP)
        if start + BLOCK_V > end:
            z = tl.where((columns < end)[None, :], z, float("-inf"))
        higher = tl.maximum(largest, tl.max(z, 1))
        # Where all logits so far are -inf, so are all differences from 0.
        from_here = tl.where(higher == float("-inf"), 0.0, higher)
        shrink = tl.exp2((largest - from_here) * to_base_2)
        p = tl.exp2((z - from_here[:, None]) * to_base_2)
        total = total * shrink + tl.sum(p, 1)
        if ENTROPY:
            weighted = weighted * shrink + tl.sum(p * tl.where(p > 0.0, z, 0.0), 1)
        largest = higher
        if TOP > 0:
            for _ in tl.static_range(TOP):
                best = tl.max(z, 1)
                place = tl.argmax(z, 1)
                slot = tl.argmin(tops, 1)
                better = (tl.arange(0, TOP)[None, :] == slot[:, None]) & (best > tl.min(tops, 1))[:, None]
                tops = tl.where(better, best[:, None], tops)
                top_columns = tl.where(better, (start + place)[:, None], top_columns)
                z = tl.where(tl.arange(0, BLOCK_V)[None, :] == place[:, None], float("-inf"), z)
    at = part.to(tl.int64) * n_rows + rows
    tl.store(maxima + at, largest * inverse_temperature, mask=row_there)
    tl.store(sums + at, total, mask=row_there)
    if ENTROPY:
        tl.store(weighted_sums + at, weighted * inverse_temperature, mask=row_there)
    if TOP > 0:
        top_at = at[:, None] * TOP + tl.arange(0, TOP)[None, :]
        tl.store(top_logits + top_at, tops * inverse_temperature, mask=row_there[:, None])
        tl.store(top_ids + top_at, top_columns, mask=row_there[:, None])


@triton.jit
def _target_kernel(
    hidden, weight, bias, target, logits, n_rows, vocabulary, width, hidden_stride, weight_stride,
    inverse_temperature, soft_cap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The targets' own logits: one product for each row, so that the slices need not look for them."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    wanted = tl.load(target + rows, mask=rows < n_rows, other=-1)
    there = (wanted >= 0) & (wanted < vocabulary)
    found = tl.zeros([BLOCK_R, BLOCK_D], dtype=tl.float32)
    for start in range(0, width, BLOCK_D):
        inner = start + tl.arange(0, BLOCK_D)
        cells = there[:, None] & (inner < width)[None, :]
        h = tl.load(hidden + rows.to(tl.int64)[:, None] * hidden_stride + inner[None, :], mask=cells, other=0.0)
        w = tl.load(weight + wanted.to(tl.int64)[:, None] * weight_stride + inner[None, :], mask=cells, other=0.0)
        found += h.to(tl.float32) * w.to(tl.float32)
    z = _offset_and_capped(
        tl.sum(found, 1), bias, tl.maximum(wanted, 0), vocabulary, soft_cap, HAS_BIAS, HAS_CAP
    )  # fmt: skip
    tl.store(logits + rows, tl.where(there, z * inverse_temperature, float("-inf")), mask=rows < n_rows)


@triton.jit
def _merge_kernel(
    maxima, sums, weighted_sums, logits, log_probs, entropies, normalizers, n_rows, n_slices,
    ENTROPY: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """All slices of a block of rows."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    row_there = rows < n_rows
    parts = tl.arange(0, BLOCK_S)
    there = row_there[:, None] & (parts < n_slices)[None, :]
    at = parts.to(tl.int64)[None, :] * n_rows + rows[:, None]
    peaks = tl.load(maxima + at, mask=there, other=float("-inf"))
    # Rows beyond the last have no maximum, and are not stored.
    highest = tl.where(row_there, tl.max(peaks, 1), 0.0)
    weight = tl.exp(peaks - highest[:, None])
    total = tl.sum(tl.load(sums + at, mask=there, other=0.0) * weight, 1)
    total = tl.where(row_there, total, 1.0)
    normalizer = highest + tl.log(total)
    logit = tl.load(logits + rows, mask=row_there, other=0.0)
    found = logit - normalizer
    # Both were rounded, apart: a token that is all but certain is not more than that. NaN stays NaN.
    tl.store(log_probs + rows, tl.where(found > 0.0, 0.0, found), mask=row_there)
    tl.store(normalizers + rows, normalizer, mask=row_there)
    if ENTROPY:
        weighted = tl.sum(tl.load(weighted_sums + at, mask=there, other=0.0) * weight, 1)
        tl.store(entropies + rows, normalizer - weighted / total, mask=row_there)


@triton.jit
def _slopes_kernel(
    hidden, weight, bias, target, normalizers, slopes,
    n_rows, first, end, width, hidden_stride, weight_stride, slopes_stride, inverse_temperature, soft_cap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, EVEN: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The derivatives of the log-probabilities by a tile of the head's products."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns = first + tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    row_there = rows < n_rows
    z = _products(
        hidden, weight, rows, columns, n_rows, end, width, hidden_stride, weight_stride,
        EVEN, UPCAST, BLOCK_R, BLOCK_V, BLOCK_D,
    )  # fmt: skip
    z = _offset_and_capped(z, bias, columns[None, :], end, soft_cap, HAS_BIAS, HAS_CAP)
    normalizer = tl.load(normalizers + rows, mask=row_there, other=0.0)
    wanted = tl.load(target + rows, mask=row_there, other=-1)
    p = tl.exp(z * inverse_temperature - normalizer[:, None])
    slope = tl.where(columns[None, :] == wanted[:, None], 1.0, 0.0) - p
    if HAS_CAP:
        capped = z / soft_cap
        slope *= 1.0 - capped * capped
    at = rows.to(tl.int64)[:, None] * slopes_stride + (columns - first)[None, :]
    there = row_there[:, None] & (columns < end)[None, :]
    tl.store(slopes + at, slope.to(slopes.dtype.element_ty), mask=there)


def linear_logprob(
    hidden: Float[Tensor, "R D"],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, " R"],
    bias: Float[Tensor, " V"] | None = None,
    *,
    temperature: float = 1.0,
    soft_cap: float | None = None,
    entropy: bool = False,
    top: int = 0,
    tiles: Tiles | None = None,
) -> HeadScores:
    """``log_softmax(cap(hidden @ weight.T + bias) / temperature)`` at the targets, without the logits.

    The soft cap ``c · tanh(z / c)`` comes before the temperature, as it does where transformers samples. Gradients
    reach ``hidden`` through ``log_prob``, once (no second derivatives); none reach ``weight`` and ``bias``.

    Args:
        hidden: last hidden states; fp32, bf16 or fp16, its last dimension contiguous.
        weight: of the head, of the same dtype.
        target: token ids.
        bias: of the head.
        temperature: above 0.
        soft_cap: c, above 0; ``None`` for none.
        entropy: ask for the entropy too.
        top: how many of the largest logits to ask for, at most 32.
        tiles: how to cut the work; chosen by the sizes.

    Raises:
        ValueError: sizes, dtypes or devices do not fit, or a number is out of its range.
        IndexError: a target is no token of the vocabulary. Looked up only in the interpreter: on a GPU it would wait
            for the device, and the log-probability of such a target is -inf.
    """
    _check(hidden, weight, target, bias, temperature, soft_cap, top)
    # Kernels read vectors one number after the other.
    head = _Head(weight, None if bias is None else bias.contiguous(), temperature, soft_cap, tiles)
    with launching():
        return HeadScores(*_LogProb.apply(hidden, target.contiguous(), head, entropy, top))


def linear_logprob_reference(
    hidden: Float[Tensor, "R D"],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, " R"],
    bias: Float[Tensor, " V"] | None = None,
    *,
    temperature: float = 1.0,
    soft_cap: float | None = None,
    entropy: bool = False,
    top: int = 0,
) -> HeadScores:
    """The same in plain PyTorch, with all logits; in fp32, or in fp64 if that is what it is given."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logits = hidden.to(dtype) @ weight.to(dtype).T
    if bias is not None:
        logits = logits + bias.to(dtype)
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    logits = logits / temperature
    log_probs = logits.log_softmax(-1)
    best = logits.topk(top) if top else (None, None)
    return HeadScores(
        log_probs.gather(1, target[:, None])[:, 0],
        logits.gather(1, target[:, None])[:, 0],
        -(log_probs.exp() * log_probs).sum(-1) if entropy else None,
        *best,
    )


@dataclass(frozen=True, slots=True)
class _Head:
    """The head, and how its kernels are launched."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None
    temperature: float
    soft_cap: float | None
    tiles: Tiles | None

    def scores(
        self, hidden: Float[Tensor, "R D"], target: Int[Tensor, " R"], entropy: bool, top: int
    ) -> tuple[HeadScores, Float[Tensor, " R"]]:
        """All that is asked for, and the logarithm of each row's sum."""
        rows = len(hidden)
        tiles = self.tiles or Tiles.of(rows, self.weight, plain=not (entropy or top))
        slice_size = math.ceil(math.ceil(len(self.weight) / tiles.slices) / tiles.vocabulary) * tiles.vocabulary
        slices = math.ceil(len(self.weight) / slice_size)
        held = power_of_two(top) if top else 0

        def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(*shape, dtype=dtype, device=hidden.device)

        maxima, sums = (new(slices, rows) for _ in range(2))
        weighted = new(slices if entropy else 1, rows if entropy else 1)
        best = new(slices, rows, held) if top else new(1)
        best_ids = new(slices, rows, held, dtype=torch.int32) if top else new(1, dtype=torch.int32)
        log_prob, logit, normalizer = (new(rows) for _ in range(3))
        found_entropy = new(rows if entropy else 1)
        if rows:
            sizes = (rows, len(self.weight), self.weight.shape[1], hidden.stride(0), self.weight.stride(0))
            _slices_kernel[(math.ceil(rows / tiles.rows), slices)](
                hidden, self.weight, self._bias, maxima, sums, weighted, best, best_ids,
                *sizes, slice_size, 1.0 / self.temperature, self.soft_cap or 1.0,
                ENTROPY=entropy, TOP=held, **self._flags, **self._cut(tiles),
                num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
            _target_kernel[(math.ceil(rows / TARGET_ROWS),)](
                hidden, self.weight, self._bias, target, logit, *sizes, 1.0 / self.temperature, self.soft_cap or 1.0,
                **self._flags, BLOCK_R=TARGET_ROWS, BLOCK_D=TARGET_CHANNELS,
            )  # fmt: skip
            _merge_kernel[(math.ceil(rows / MERGED_ROWS),)](
                maxima, sums, weighted, logit, log_prob, found_entropy, normalizer, rows, slices,
                ENTROPY=entropy, BLOCK_R=MERGED_ROWS, BLOCK_S=power_of_two(slices),
            )  # fmt: skip
        scores = HeadScores(log_prob, logit, found_entropy if entropy else None, *_best_of(best, best_ids, rows, top))
        return scores, normalizer

    def gradient(
        self, hidden: Float[Tensor, "R D"], target: Int[Tensor, " R"], normalizer: Tensor, upstream: Float[Tensor, " R"]
    ) -> Float[Tensor, "R D"]:
        """Of the weighted log-probabilities, for the hidden states; a slice of the vocabulary at a time.

        A slice's derivatives are computed in fp32 and written in the dtype of the weights, which they multiply; what
        may be any number, the weights of rows and the temperature, comes in at the end, in fp32.
        """
        rows = len(hidden)
        tiles = self.tiles or Tiles.of(rows, self.weight, plain=False)
        found = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        step = max(tiles.vocabulary, SLOPES_BYTES // (max(1, rows) * 4) // tiles.vocabulary * tiles.vocabulary)
        slopes = torch.empty(rows, min(step, len(self.weight)), dtype=self.weight.dtype, device=hidden.device)
        for first in range(0, len(self.weight) if rows else 0, step):
            end = min(first + step, len(self.weight))
            with launching():
                _slopes_kernel[(math.ceil(rows / tiles.rows), math.ceil((end - first) / tiles.vocabulary))](
                    hidden, self.weight, self._bias, target, normalizer, slopes,
                    rows, first, end, self.weight.shape[1], hidden.stride(0), self.weight.stride(0), slopes.stride(0),
                    1.0 / self.temperature, self.soft_cap or 1.0,
                    **self._flags, **self._cut(tiles), num_warps=tiles.warps, num_stages=tiles.stages,
                )  # fmt: skip
            found += slopes[:, : end - first] @ self.weight[first:end]
        return (found * (upstream / self.temperature)[:, None]).to(hidden.dtype)

    @property
    def _bias(self) -> Tensor:
        """A pointer that is not read where there is no bias."""
        return self.weight if self.bias is None else self.bias

    @property
    def _flags(self) -> dict[str, bool]:
        return {"HAS_BIAS": self.bias is not None, "HAS_CAP": self.soft_cap is not None}

    def _cut(self, tiles: Tiles) -> dict[str, Any]:
        return {
            "EVEN": self.weight.shape[1] % tiles.inner == 0,
            "UPCAST": upcasts(self.weight.dtype),
            "BLOCK_R": tiles.rows,
            "BLOCK_V": tiles.vocabulary,
            "BLOCK_D": tiles.inner,
        }


class _LogProb(torch.autograd.Function):
    """Only the log-probability has a gradient, and only for the hidden states."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, target: Tensor, head: _Head, entropy: bool, top: int
    ) -> tuple[Tensor | None, ...]:
        scores, normalizer = head.scores(hidden, target, entropy, top)
        ctx.head = head
        # The weights too: PyTorch refuses a gradient whose inputs were changed in between.
        ctx.save_for_backward(hidden, target, normalizer, head.weight, head.bias)
        others = (scores.logit, scores.entropy, scores.top_logits, scores.top_ids)
        ctx.mark_non_differentiable(*(tensor for tensor in others if tensor is not None))
        return (scores.log_prob, *others)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("linear_logprob has no second derivatives; leave out create_graph=True.")
        hidden, target, normalizer, _, _ = ctx.saved_tensors
        return ctx.head.gradient(hidden, target, normalizer, upstream[0]), None, None, None, None


def _best_of(
    logits: Float[Tensor, "S R k"], ids: Int[Tensor, "S R k"], rows: int, top: int
) -> tuple[Tensor | None, Tensor | None]:
    """The largest of all slices."""
    if not top:
        return None, None
    if not rows:
        return logits.new_empty(0, top), ids.new_empty(0, top).long()
    logits, ids = (part.transpose(0, 1).reshape(rows, -1) for part in (logits, ids))
    best = logits.topk(top)
    return best.values, ids.gather(1, best.indices).long()


def _check(
    hidden: Tensor,
    weight: Tensor,
    target: Tensor,
    bias: Tensor | None,
    temperature: float,
    soft_cap: float | None,
    top: int,
) -> None:
    require_device(hidden, weight, target, bias)
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or target.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden must be [R, D], weight [V, D] and target [R]; these are {list(hidden.shape)}, "
            f"{list(weight.shape)} and {list(target.shape)}."
        )
    if not weight.numel():
        raise ValueError(f"weight must have a token and a channel; it is {list(weight.shape)}.")
    if target.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"target must be int64 or int32; it is {target.dtype}.")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be [V] = [{len(weight)}]; it is {list(bias.shape)}.")
    if hidden.dtype != weight.dtype or hidden.dtype not in DTYPES:
        raise ValueError(
            f"hidden and weight must have one dtype of {', '.join(map(str, DTYPES))}; these are {hidden.dtype} and "
            f"{weight.dtype}."
        )
    if hidden.stride(1) != 1 or weight.stride(1) != 1:
        raise ValueError("The last dimension of hidden and weight must be contiguous.")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature={temperature} must be above 0.")
    if soft_cap is not None and not (math.isfinite(soft_cap) and soft_cap > 0):
        raise ValueError(f"soft_cap={soft_cap} must be above 0, or None.")
    if not isinstance(top, int) or not 0 <= top <= min(MOST_TOP, len(weight)):
        raise ValueError(f"top={top} must be a whole number between 0 and {min(MOST_TOP, len(weight))}.")
    if interpreting() and len(target) and not (int(target.min()) >= 0 and int(target.max()) < len(weight)):
        raise IndexError(f"Targets must be tokens of the vocabulary, 0 to {len(weight) - 1}.")

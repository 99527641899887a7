"""Log-probabilities of target tokens, fused with the product of hidden states and the head's weights.

Each program walks a slice of the vocabulary for a block of rows and keeps a running maximum and a running sum, in fp32
(the online softmax of Milakov and Gimelshein, arXiv 1805.02867). The target's own logit is one product per row, and a
last kernel merges the slices. Logits exist one tile at a time, in registers. There are no atomics, so results are
bitwise reproducible. The idea of never writing logits is that of Cut Cross-Entropy (Wijmans et al., arXiv 2411.09009);
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

__all__ = ["linear_logprob", "linear_logprob_reference"]

MERGED_ROWS = 64
"""Rows whose slices one program merges."""
TARGET_ROWS, TARGET_CHANNELS = 16, 128
"""Rows whose target logits one program computes, and the channels of one step."""
SLOPES_BYTES = 64 * 2**20
"""Memory for the derivatives of a slice of the vocabulary, in fp32."""


@triton.jit
def _bias_and_cap(logits, bias, columns, n_columns, soft_cap, HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr):
    """Products of the given columns, offset and soft-capped."""
    if HAS_BIAS:
        logits += tl.load(bias + tl.minimum(columns, n_columns - 1)).to(tl.float32)
    if HAS_CAP:
        # tanh(x) = 2 sigmoid(2x) - 1; the interpreter has no tanh.
        logits = soft_cap * (2.0 * tl.sigmoid(2.0 * logits / soft_cap) - 1.0)
    return logits


@triton.jit
def _logits(
    hidden, weight, bias, rows, columns, n_rows, n_columns, width, hidden_stride, weight_stride, soft_cap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, EVEN: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A tile of logits. Rows and columns past the end repeat the last one."""
    of_row = hidden + tl.minimum(rows, n_rows - 1).to(tl.int64)[:, None] * hidden_stride
    of_column = weight + tl.minimum(columns, n_columns - 1).to(tl.int64)[None, :] * weight_stride
    products = tl.zeros([BLOCK_R, BLOCK_V], dtype=tl.float32)
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
        products = tl.dot(h, w, products, input_precision="tf32x3")
    return _bias_and_cap(products, bias, columns[None, :], n_columns, soft_cap, HAS_BIAS, HAS_CAP)


@triton.jit
def _slices_kernel(
    hidden, weight, bias, maxima, sums,
    n_rows, vocabulary, width, hidden_stride, weight_stride, slice_size, soft_cap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, EVEN: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Maximum and sum of exponentials of one slice of the vocabulary, for one block of rows."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    part = tl.program_id(1)
    first = part * slice_size
    end = tl.minimum(first + slice_size, vocabulary)
    largest = tl.full([BLOCK_R], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_R], dtype=tl.float32)
    for start in range(first, end, BLOCK_V):
        columns = start + tl.arange(0, BLOCK_V)
        z = _logits(
            hidden, weight, bias, rows, columns, n_rows, end, width, hidden_stride, weight_stride, soft_cap,
            HAS_BIAS, HAS_CAP, EVEN, UPCAST, BLOCK_R, BLOCK_V, BLOCK_D,
        )  # fmt: skip
        if start + BLOCK_V > end:
            z = tl.where((columns < end)[None, :], z, float("-inf"))
        higher = tl.maximum(largest, tl.max(z, 1))
        # While every logit is -inf, so is the maximum, and -inf - -inf is NaN.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(largest - base) + tl.sum(tl.exp(z - base[:, None]), 1)
        largest = higher
    at = part.to(tl.int64) * n_rows + rows
    tl.store(maxima + at, largest, mask=rows < n_rows)
    tl.store(sums + at, total, mask=rows < n_rows)


@triton.jit
def _target_kernel(
    hidden, weight, bias, target, logits, n_rows, vocabulary, width, hidden_stride, weight_stride, soft_cap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The target's logit: one product per row, so that the slices need not look for it."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    wanted = tl.load(target + rows, mask=rows < n_rows, other=-1)
    there = (wanted >= 0) & (wanted < vocabulary)
    products = tl.zeros([BLOCK_R, BLOCK_D], dtype=tl.float32)
    for start in range(0, width, BLOCK_D):
        inner = start + tl.arange(0, BLOCK_D)
        cells = there[:, None] & (inner < width)[None, :]
        h = tl.load(hidden + rows.to(tl.int64)[:, None] * hidden_stride + inner[None, :], mask=cells, other=0.0)
        w = tl.load(weight + wanted.to(tl.int64)[:, None] * weight_stride + inner[None, :], mask=cells, other=0.0)
        products += h.to(tl.float32) * w.to(tl.float32)
    z = _bias_and_cap(tl.sum(products, 1), bias, tl.maximum(wanted, 0), vocabulary, soft_cap, HAS_BIAS, HAS_CAP)
    tl.store(logits + rows, tl.where(there, z, float("-inf")), mask=rows < n_rows)


@triton.jit
def _merge_kernel(
    maxima, sums, logits, log_probs, normalizers, n_rows, n_slices, BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr
):  # fmt: skip
    """Merge the slices of a block of rows into log-probabilities and log-sum-exps."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    row_there = rows < n_rows
    parts = tl.arange(0, BLOCK_S)
    there = row_there[:, None] & (parts < n_slices)[None, :]
    at = parts.to(tl.int64)[None, :] * n_rows + rows[:, None]
    peaks = tl.load(maxima + at, mask=there, other=float("-inf"))
    # Rows past the end have no maximum, and are not stored.
    highest = tl.where(row_there, tl.max(peaks, 1), 0.0)
    total = tl.sum(tl.load(sums + at, mask=there, other=0.0) * tl.exp(peaks - highest[:, None]), 1)
    normalizer = highest + tl.log(tl.where(row_there, total, 1.0))
    log_prob = tl.load(logits + rows, mask=row_there, other=0.0) - normalizer
    # Both terms are rounded separately, so an all but certain token may come out above 0. NaN stays NaN.
    tl.store(log_probs + rows, tl.where(log_prob > 0.0, 0.0, log_prob), mask=row_there)
    tl.store(normalizers + rows, normalizer, mask=row_there)


@triton.jit
def _slopes_kernel(
    hidden, weight, bias, target, normalizers, slopes,
    n_rows, first, end, width, hidden_stride, weight_stride, slopes_stride, soft_cap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, EVEN: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Derivatives of the log-probabilities with respect to a tile of the head's products."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns = first + tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    row_there = rows < n_rows
    z = _logits(
        hidden, weight, bias, rows, columns, n_rows, end, width, hidden_stride, weight_stride, soft_cap,
        HAS_BIAS, HAS_CAP, EVEN, UPCAST, BLOCK_R, BLOCK_V, BLOCK_D,
    )  # fmt: skip
    normalizer = tl.load(normalizers + rows, mask=row_there, other=0.0)
    wanted = tl.load(target + rows, mask=row_there, other=-1)
    slope = tl.where(columns[None, :] == wanted[:, None], 1.0, 0.0) - tl.exp(z - normalizer[:, None])
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
    soft_cap: float | None = None,
    tiles: Tiles | None = None,
) -> Float[Tensor, " R"]:
    """Log-probability of each row's target token in nats, fp32, computed without storing logits.

    ``log_softmax(cap(hidden @ weight.T + bias))`` at the targets, where the soft cap is ``c · tanh(z / c)``. Gradients
    reach ``hidden`` only, and only once (no second derivatives).

    Args:
        hidden: last hidden states; fp32, bf16 or fp16, its last dimension contiguous.
        weight: weight of the head, in the same dtype.
        target: token ids.
        bias: bias of the head; ``None`` for none.
        soft_cap: c, above 0; ``None`` for none.
        tiles: tile sizes; ``None`` to choose them by the sizes of the inputs.

    Raises:
        ValueError: sizes, dtypes or devices do not match, or ``soft_cap`` is out of range.
        IndexError: a target is not a token of the vocabulary. Only the interpreter checks: on a GPU the check would
            wait for the device, and the log-probability of such a target is -inf.
    """
    _check(hidden, weight, target, bias, soft_cap)
    # Kernels read vectors with stride 1.
    head = _Head(weight, None if bias is None else bias.contiguous(), soft_cap, tiles)
    with launching():
        found: Tensor = _LogProb.apply(hidden, target.contiguous(), head)
    return found


def linear_logprob_reference(
    hidden: Float[Tensor, "R D"],
    weight: Float[Tensor, "V D"],
    target: Int[Tensor, " R"],
    bias: Float[Tensor, " V"] | None = None,
    *,
    soft_cap: float | None = None,
) -> Float[Tensor, " R"]:
    """``linear_logprob`` in plain PyTorch, with all logits in memory; in fp32, or in fp64 for fp64 inputs."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logits = hidden.to(dtype) @ weight.to(dtype).T
    if bias is not None:
        logits = logits + bias.to(dtype)
    if soft_cap is not None:
        logits = soft_cap * torch.tanh(logits / soft_cap)
    return logits.log_softmax(-1).gather(1, target[:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class _Head:
    """The head, and how its kernels are launched."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None
    soft_cap: float | None
    tiles: Tiles | None

    def log_probs(
        self, hidden: Float[Tensor, "R D"], target: Int[Tensor, " R"]
    ) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
        """Log-probabilities, and the log-sum-exp of each row."""
        rows, tiles = len(hidden), self._tiles(hidden)
        slice_size = math.ceil(math.ceil(len(self.weight) / tiles.slices) / tiles.vocabulary) * tiles.vocabulary
        slices = math.ceil(len(self.weight) / slice_size)
        maxima, sums = (hidden.new_empty(slices, rows, dtype=torch.float32) for _ in range(2))
        logits, log_probs, normalizers = (hidden.new_empty(rows, dtype=torch.float32) for _ in range(3))
        if rows:
            sizes = (rows, len(self.weight), self.weight.shape[1], hidden.stride(0), self.weight.stride(0))
            cap = self.soft_cap or 1.0
            _slices_kernel[(math.ceil(rows / tiles.rows), slices)](
                hidden, self.weight, self._bias, maxima, sums, *sizes, slice_size, cap,
                **self._flags, **self._cut(tiles), num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
            _target_kernel[(math.ceil(rows / TARGET_ROWS),)](
                hidden, self.weight, self._bias, target, logits, *sizes, cap,
                **self._flags, BLOCK_R=TARGET_ROWS, BLOCK_D=TARGET_CHANNELS,
            )  # fmt: skip
            _merge_kernel[(math.ceil(rows / MERGED_ROWS),)](
                maxima, sums, logits, log_probs, normalizers, rows, slices,
                BLOCK_R=MERGED_ROWS, BLOCK_S=power_of_two(slices),
            )  # fmt: skip
        return log_probs, normalizers

    def gradient(
        self,
        hidden: Float[Tensor, "R D"],
        target: Int[Tensor, " R"],
        normalizers: Float[Tensor, " R"],
        upstream: Float[Tensor, " R"],
    ) -> Float[Tensor, "R D"]:
        """Gradient with respect to the hidden states, one slice of the vocabulary at a time.

        A slice's derivatives are computed in fp32 and stored in the dtype of the weights that they multiply. The
        upstream gradient may have any scale, so it is applied at the end, in fp32.
        """
        rows, tiles = len(hidden), self._tiles(hidden).for_gradient()
        found = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
        step = max(tiles.vocabulary, SLOPES_BYTES // (max(1, rows) * 4) // tiles.vocabulary * tiles.vocabulary)
        slopes = torch.empty(rows, min(step, len(self.weight)), dtype=self.weight.dtype, device=hidden.device)
        for first in range(0, len(self.weight) if rows else 0, step):
            end = min(first + step, len(self.weight))
            with launching():
                _slopes_kernel[(math.ceil(rows / tiles.rows), math.ceil((end - first) / tiles.vocabulary))](
                    hidden, self.weight, self._bias, target, normalizers, slopes,
                    rows, first, end, self.weight.shape[1], hidden.stride(0), self.weight.stride(0), slopes.stride(0),
                    self.soft_cap or 1.0,
                    **self._flags, **self._cut(tiles), num_warps=tiles.warps, num_stages=tiles.stages,
                )  # fmt: skip
            found += slopes[:, : end - first] @ self.weight[first:end]
        return (found * upstream[:, None]).to(hidden.dtype)

    def _tiles(self, hidden: Float[Tensor, "R D"]) -> Tiles:
        bare = self.bias is None and self.soft_cap is None
        return self.tiles or Tiles.of(len(hidden), self.weight, bare=bare)

    @property
    def _bias(self) -> Tensor:
        """The bias, or a pointer that is never read."""
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
    """Log-probabilities that are differentiable with respect to the hidden states.

    Scoring never calls ``backward``. It is here for gradient methods, whose targets are log-probabilities of models
    that they do not train, so that weight and bias need no gradient.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, target: Tensor, head: _Head) -> Tensor:
        log_probs, normalizers = head.log_probs(hidden, target)
        ctx.head = head
        # Saving the weights too lets PyTorch detect that they were changed before the backward pass.
        ctx.save_for_backward(hidden, target, normalizers, head.weight, head.bias)
        return log_probs

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("linear_logprob has no second derivatives; leave out create_graph=True.")
        hidden, target, normalizers, _, _ = ctx.saved_tensors
        return ctx.head.gradient(hidden, target, normalizers, upstream), None, None


def _check(hidden: Tensor, weight: Tensor, target: Tensor, bias: Tensor | None, soft_cap: float | None) -> None:
    require_device(hidden, weight, target, bias)
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or target.shape != hidden.shape[:1]:
        raise ValueError(
            f"hidden must be [R, D], weight [V, D] and target [R]; these are {list(hidden.shape)}, "
            f"{list(weight.shape)} and {list(target.shape)}."
        )
    if not weight.numel():
        raise ValueError(f"weight must not be empty; it is {list(weight.shape)}.")
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
    if soft_cap is not None and not (math.isfinite(soft_cap) and soft_cap > 0):
        raise ValueError(f"soft_cap={soft_cap} must be above 0, or None.")
    if interpreting() and len(target) and not (int(target.min()) >= 0 and int(target.max()) < len(weight)):
        raise IndexError(f"Each target must be a token of the vocabulary, 0 to {len(weight) - 1}.")

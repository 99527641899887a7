"""Log-probabilities of target tokens: the fused kernel, PyTorch, liger-kernel and cut-cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from benchmarks.kernels.timing import Contender, measure
from torch import Tensor
from torch.nn import functional

from apportion_backends.torch.head import Head, target_log_probs
from apportion_backends.triton.linear_logprob import linear_logprob

__all__ = ["CONTENDERS", "SHAPES", "TINY", "HeadShape", "compare_heads"]

CHECKED_ROWS = 64
"""Rows whose log-probabilities are compared with fp64."""


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Numbers of hidden states, channels, and tokens of the vocabulary."""

    rows: int
    width: int
    vocabulary: int
    dtype: torch.dtype


SHAPES = (
    HeadShape(4_096, 4096, 128_256, torch.bfloat16),
    HeadShape(32_768, 4096, 128_256, torch.bfloat16),
    HeadShape(100_000, 4096, 128_256, torch.bfloat16),
    HeadShape(32_768, 1024, 151_936, torch.bfloat16),
    HeadShape(4_096, 4096, 128_256, torch.float32),
)
"""Heads of Llama 3 8B and of Qwen3 0.6B."""
TINY = (HeadShape(40, 32, 300, torch.float32),)


def compare_heads(shape: HeadShape, device: str) -> Iterator[Contender]:
    """Time the bare matrix product, then all implementations of log-probabilities."""
    draw = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(shape.rows, shape.width, generator=draw, device=device).to(shape.dtype)
    weight = (torch.randn(shape.vocabulary, shape.width, generator=draw, device=device) / shape.width**0.5).to(
        shape.dtype
    )
    target = torch.randint(0, shape.vocabulary, (shape.rows,), generator=draw, device=device)
    exact = _exact(hidden[:CHECKED_ROWS], weight, target[:CHECKED_ROWS])
    for name, make in CONTENDERS.items():
        try:
            call = make(hidden, weight, target)
            found = call()
            timed = measure(call, device)
        except (ImportError, AttributeError, RuntimeError, ValueError, TypeError) as error:
            yield Contender(name, None, note=f"{type(error).__name__}: {str(error).splitlines()[0]:.80}")
            continue
        finally:
            if device != "cpu":
                torch.cuda.empty_cache()
        error_of = None if found is None else float((found[:CHECKED_ROWS].double() - exact).abs().max())
        yield Contender(name, timed, error_of)


Call = Callable[[], "Tensor | None"]


def _exact(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    parts = [hidden.double() @ part.double().T for part in weight.split(16_384)]
    return torch.cat(parts, 1).log_softmax(-1).gather(1, target[:, None])[:, 0]


def _product(hidden: Tensor, weight: Tensor, target: Tensor) -> Call:
    """The matrix product alone, result discarded; computed in slices of rows to fit into memory."""
    rows = max(1, min(len(hidden), 2**31 // weight.shape[0]))
    out = torch.empty(rows, len(weight), dtype=hidden.dtype, device=hidden.device)

    def call() -> None:
        for part in hidden.split(rows):
            torch.mm(part, weight.T, out=out[: len(part)])

    return call


def _fused(hidden: Tensor, weight: Tensor, target: Tensor) -> Call:
    return lambda: linear_logprob(hidden, weight, target)


def _torch(hidden: Tensor, weight: Tensor, target: Tensor) -> Call:
    return lambda: target_log_probs(hidden, Head(weight), target)


def _linear_cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor) -> Call:
    compute = functional.linear_cross_entropy  # since torch 2.13
    return lambda: -compute(hidden, weight, target, reduction="none")


def _compiled(hidden: Tensor, weight: Tensor, target: Tensor) -> Call:
    @torch.compile
    def compute(h: Tensor, w: Tensor, t: Tensor) -> Tensor:
        return -functional.cross_entropy((h @ w.T).float(), t, reduction="none")

    return lambda: compute(hidden, weight, target)


def _liger(hidden: Tensor, weight: Tensor, target: Tensor) -> Call:
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return lambda: -liger_fused_linear_cross_entropy(hidden, weight, target, reduction="none")


def _cut_cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor) -> Call:
    from cut_cross_entropy import linear_cross_entropy

    return lambda: -linear_cross_entropy(hidden, weight, target, reduction="none")


CONTENDERS: dict[str, Callable[[Tensor, Tensor, Tensor], Call]] = {
    "bare matrix product": _product,
    "apportion linear_logprob": _fused,
    "apportion torch, chunked": _torch,
    "F.linear_cross_entropy": _linear_cross_entropy,
    "torch.compile of cross entropy": _compiled,
    "liger-kernel": _liger,
    "cut-cross-entropy": _cut_cross_entropy,
}

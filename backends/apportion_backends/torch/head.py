"""Log-probabilities of target tokens from hidden states, without storing all logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from apportion.protocols.batch import ScoringBatch
from apportion_backends.torch.products import few_sizes, linear, multiplies

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["CHUNK_BYTES", "Head", "all_logits", "at_targets", "log_probs_of_logits", "target_log_probs"]

CHUNK_BYTES = {"cpu": 2 * 2**20, "cuda": 64 * 2**20}
"""Memory for one slice of the vocabulary: its logits, and its weights where they are upcast.

On a CPU a slice stays in the cache until it is summed up: 2 MiB took 0.8 of the time of 64 MiB for 256 rows of SmolLM2.
"""


TargetScores = Callable[[Float[Tensor, "R D"], Int[Tensor, " R"]], Float[Tensor, " R"]]


def at_targets(score: TargetScores, hidden: Float[Tensor, "B T D"], batch: ScoringBatch) -> Float[Tensor, "B T"]:
    """Score each row's own target tokens; 0 beyond."""
    ids, lengths = batch.targets()
    counts = torch.arange(ids.shape[1]) < lengths[:, None]
    there = counts.to(hidden.device)
    found = score(hidden[there], ids[counts].to(hidden.device))
    return found.new_zeros(counts.shape).masked_scatter(there, found)


@dataclass(frozen=True, slots=True)
class Head:
    """An output layer that is a product, and after it no more than a soft cap: ``c · tanh(z / c)``, as in Gemma 2."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None = None
    soft_cap: float | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> Head:
        """Read it from the model's output embedding and configuration; ``probe`` checks that there is no more to it."""
        layer = model.get_output_embeddings()
        cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        bias, more = getattr(layer, "bias", None), getattr(model, "final_logits_bias", None)
        if isinstance(more, Tensor):  # BART and Marian add it after the layer
            bias = more[0] if bias is None else bias + more[0]
        return cls(layer.weight, bias, cap)

    def capped(self, logits: Float[Tensor, "*R V"]) -> Float[Tensor, "*R V"]:
        """Logits of the product as the model gives them."""
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)


def target_log_probs(hidden: Float[Tensor, "R D"], head: Head, target: Int[Tensor, " R"]) -> Float[Tensor, " R"]:
    """``log_softmax`` of the head's logits at the target ids, in fp32 or better.

    Half-precision inputs are upcast slice by slice, because logits rounded to bf16 are off by up to 0.06
    nats. The running maximum and sum follow the online softmax (Milakov and Gimelshein, arXiv 1805.02867).
    """
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    rows = len(hidden)
    spare = few_sizes(rows) - rows if multiplies(hidden.device, dtype) else 0
    hidden, target = functional.pad(hidden.to(dtype), (0, 0, 0, spare)), functional.pad(target, (0, spare))
    # A slice holds its logits and, when upcast, its weights.
    weight, bias = head.weight, head.bias
    columns = hidden.shape[0] + (0 if weight.dtype == dtype else hidden.shape[1])
    per_slice = _columns(hidden, columns)
    total = torch.full((hidden.shape[0],), -torch.inf, dtype=dtype, device=hidden.device)
    chosen = torch.zeros_like(total)
    for start in range(0, weight.shape[0], per_slice):
        tokens = slice(start, min(start + per_slice, weight.shape[0]))
        offset = None if bias is None else bias[tokens].to(dtype)
        logits = head.capped(linear(hidden, weight[tokens].to(dtype), offset))
        here = (target >= tokens.start) & (target < tokens.stop)
        index = (target - tokens.start).clamp(0, logits.shape[1] - 1)
        chosen = torch.where(here, logits.gather(1, index[:, None])[:, 0], chosen)
        total = torch.logaddexp(total, logits.logsumexp(1))
    return (chosen - total)[:rows]


def all_logits(hidden: Float[Tensor, "B T D"], head: Head) -> Float[Tensor, "B T V"]:
    """The head's logits in fp32 or better, its weights upcast slice by slice."""
    weight, bias = head.weight, head.bias
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    logits = torch.empty(*hidden.shape[:2], weight.shape[0], dtype=dtype, device=hidden.device)
    per_slice = _columns(hidden, hidden.shape[-1])
    for start in range(0, weight.shape[0], per_slice):
        rows = slice(start, start + per_slice)
        offset = None if bias is None else bias[rows].to(dtype)
        logits[..., rows] = head.capped(functional.linear(hidden.to(dtype), weight[rows].to(dtype), offset))
    return logits


def upcast(values: Tensor) -> Tensor:
    """Convert to fp32; fp64 stays fp64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def log_probs_of_logits(logits: Float[Tensor, "B T V"], target: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Log-probabilities from logits that the model computed itself, one row at a time in fp32 or better."""
    rows = [
        (z := upcast(row)).gather(1, ids[:, None])[:, 0] - z.logsumexp(1)
        for row, ids in zip(logits, target, strict=True)
    ]
    return torch.stack(rows)


def _columns(hidden: Tensor, height: int) -> int:
    """Columns of the vocabulary that fit into a slice of this height."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    room = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"])
    return max(1, room // (max(1, height) * dtype.itemsize))

"""Embeddings of perturbed prompts, from one shared copy of prompt and baseline.

A coalition is a few words of bits. Where the bit of a token's feature is set the token's own embedding is written, and
elsewhere that of its baseline: another token, or a vector. Nothing but the result has a row for each coalition.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apportion_backends.triton.runtime import interpreting, launching, power_of_two, require_device

__all__ = ["masked_embedding", "masked_embedding_reference", "pack_coalitions"]

BLOCK_TOKENS = 16
BLOCK_CHANNELS = 128
KEPT = -1
"""The feature of a token that is in every coalition."""


@triton.jit
def _kernel(
    words, features, ids, baseline_ids, baseline, weight, out,
    n_tokens, width, n_words, baseline_stride, weight_stride,
    BY_ID: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """A block of tokens of one coalition, some channels of them."""
    coalition = tl.program_id(0).to(tl.int64)
    tokens = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    channels = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    there = tokens < n_tokens
    cells = there[:, None] & (channels < width)[None, :]
    feature = tl.load(features + tokens, mask=there, other=-1)
    asked = tl.maximum(feature, 0)
    word = tl.load(words + coalition * n_words + (asked >> 5), mask=there, other=0)
    present = (feature < 0) | (((word >> (asked & 31)) & 1) == 1)
    own = tl.load(ids + tokens, mask=there, other=0)
    if BY_ID:
        other = tl.load(baseline_ids + tokens, mask=there, other=0)
        chosen = tl.where(present, own, other)
        found = tl.load(weight + chosen[:, None] * weight_stride + channels[None, :], mask=cells, other=0.0)
    else:
        mine = tl.load(
            weight + own[:, None] * weight_stride + channels[None, :], mask=cells & present[:, None], other=0.0
        )
        theirs = tl.load(
            baseline + tokens[:, None] * baseline_stride + channels[None, :], mask=cells & (present[:, None] == 0),
            other=0.0,
        )  # fmt: skip
        found = tl.where(present[:, None], mine, theirs)
    at = (coalition * n_tokens + tokens)[:, None] * width + channels[None, :]
    tl.store(out + at, found, mask=cells)


def pack_coalitions(coalitions: Bool[Tensor, "N F"]) -> Int[Tensor, "N W"]:
    """Coalitions as words of 32 bits: bit ``f & 31`` of word ``f >> 5`` says whether feature f is present."""
    rows, features = coalitions.shape
    words = max(1, math.ceil(features / 32))
    padded = torch.zeros(rows, words * 32, dtype=torch.int64, device=coalitions.device)
    padded[:, :features] = coalitions
    shifts = torch.arange(32, device=coalitions.device)
    # As signed 32-bit numbers, whose bits are the same.
    return (padded.reshape(rows, words, 32) << shifts).sum(-1).to(torch.int32)


def masked_embedding(
    words: Int[Tensor, "N W"],
    features: Int[Tensor, " L"],
    ids: Int[Tensor, " L"],
    weight: Float[Tensor, "V D"],
    baseline: Int[Tensor, " L"] | Float[Tensor, "L D"] | Float[Tensor, " D"],
) -> Float[Tensor, "N L D"]:
    """Embeddings of a prompt's tokens in every coalition; the very numbers of the table and the baseline.

    It has no gradient: what it gives is where a gradient may begin.

    Args:
        words: coalitions, see ``pack_coalitions``.
        features: of each token its feature; -1 where it is always present.
        ids: of the prompt's tokens.
        weight: the embedding table.
        baseline: of each token another token or a vector, or one vector for all.

    Raises:
        ValueError: shapes, dtypes or devices do not fit; or a feature or a token does not exist (looked up only in the
            interpreter: on a GPU it would wait for the device).
    """
    _check(words, features, ids, weight, baseline)
    rows, tokens, width = len(words), len(ids), weight.shape[1]
    out = torch.empty(rows, tokens, width, dtype=weight.dtype, device=weight.device)
    by_id = not baseline.is_floating_point()
    block = BLOCK_CHANNELS if not interpreting() else power_of_two(width)
    if out.numel():
        # Kernels read vectors one number after the other.
        words, features, ids = (part.contiguous() for part in (words, features, ids))
        with launching():
            _kernel[(rows, math.ceil(tokens / BLOCK_TOKENS), math.ceil(width / block))](
                words, features, ids, baseline.contiguous() if by_id else ids, weight if by_id else baseline, weight,
                out, tokens, width, words.shape[1], baseline.stride(0) if baseline.ndim == 2 else 0, weight.stride(0),
                BY_ID=by_id, BLOCK_L=BLOCK_TOKENS, BLOCK_D=block,
            )  # fmt: skip
    return out


def masked_embedding_reference(
    words: Int[Tensor, "N W"],
    features: Int[Tensor, " L"],
    ids: Int[Tensor, " L"],
    weight: Float[Tensor, "V D"],
    baseline: Int[Tensor, " L"] | Float[Tensor, "L D"] | Float[Tensor, " D"],
) -> Float[Tensor, "N L D"]:
    """The same in plain PyTorch."""
    asked = features.clamp(min=0).long()
    present = (features < 0) | (((words.long()[:, asked >> 5] >> (asked & 31)) & 1) == 1)
    absent = baseline if baseline.is_floating_point() else weight[baseline]
    return torch.where(present[:, :, None], weight[ids], absent.expand(len(ids), -1))


def _check(words: Tensor, features: Tensor, ids: Tensor, weight: Tensor, baseline: Tensor) -> None:
    require_device(words, features, ids, weight, baseline)
    if words.ndim != 2 or words.dtype != torch.int32 or not words.shape[1]:
        raise ValueError(
            f"words must be int32 [N, W ≥ 1], as pack_coalitions gives; got {words.dtype} {list(words.shape)}."
        )
    if features.shape != ids.shape or ids.ndim != 1 or weight.ndim != 2:
        raise ValueError(
            f"features and ids must be [L] and weight [V, D]; these are {list(features.shape)}, {list(ids.shape)} and "
            f"{list(weight.shape)}."
        )
    shapes = ((len(ids), weight.shape[1]), (weight.shape[1],)) if baseline.is_floating_point() else ((len(ids),),)
    if tuple(baseline.shape) not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"This baseline must be {wanted}; it is {list(baseline.shape)}.")
    if baseline.is_floating_point() and baseline.dtype != weight.dtype:
        raise ValueError(f"baseline is {baseline.dtype} and weight {weight.dtype}; make them one dtype.")
    if weight.stride(1) != 1 or (baseline.is_floating_point() and baseline.stride(-1) != 1):
        raise ValueError("The last dimension of weight and baseline must be contiguous.")
    if interpreting() and len(ids):
        if not (int(features.min()) >= KEPT and int(features.max()) < 32 * words.shape[1]):
            raise ValueError(f"Features must be between -1 and {32 * words.shape[1] - 1}, which is what words hold.")
        tokens = ids if baseline.is_floating_point() else torch.cat([ids, baseline])
        if not (int(tokens.min()) >= 0 and int(tokens.max()) < len(weight)):
            raise ValueError(f"Tokens must be between 0 and {len(weight) - 1}.")

"""Helpers that build the columns of values, for the whole target and each token, and align two targets."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.protocols.targets import Target

__all__ = ["aligned", "chosen_logits", "columns", "expectation", "summed"]


def columns(whole: Float[Tensor, " S"], tokens: Float[Tensor, "S T"]) -> Float[Tensor, "S K"]:
    """Concatenate the value of the whole target and those of its tokens."""
    return torch.cat([whole[:, None], tokens], dim=1)


def summed(tokens: Float[Tensor, "S T"]) -> Float[Tensor, "S K"]:
    """Sum over the tokens for the whole target, followed by each token; float64."""
    tokens = tokens.double()
    return columns(tokens.sum(1), tokens)


def chosen_logits(logits: Float[Tensor, "S T V"], target: Target) -> Float[Tensor, "S T"]:
    """Logits of the target's own tokens."""
    ids: Int[Tensor, " T"] = torch.tensor(target.ids, device=logits.device)
    chosen: Tensor = logits.gather(2, ids[None, :, None].expand(len(logits), -1, 1))
    return chosen[:, :, 0].double()


def expectation(log_probs: Float[Tensor, "S T V"], values: Float[Tensor, "S T V"]) -> Float[Tensor, "S T"]:
    """Mean of values over the vocabulary; tokens of probability 0 count 0, whatever their value is."""
    probs = log_probs.exp()
    return (probs * values.masked_fill(probs == 0, 0.0)).sum(-1)


def aligned(contrast: Float[Tensor, "S C"], tokens: int) -> Float[Tensor, "S T"]:
    """Values of the contrast's tokens, aligned with the target's from the left.

    A target token past the contrast's end is compared with 0; contrast tokens past the target's end are dropped.
    """
    beside = torch.zeros(len(contrast), tokens, dtype=contrast.dtype, device=contrast.device)
    shared = min(tokens, contrast.shape[1])
    beside[:, :shared] = contrast[:, :shared]
    return beside

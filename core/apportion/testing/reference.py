"""Reference scores: one whole prompt at a time, without a cache, with all logits, computed in float64.

An encoder–decoder model reads the prompt in its encoder, and the target after the start of its decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["log_probs", "logits", "sequence_and_tokens"]


@torch.no_grad()
def logits(model: PreTrainedModel, prompt: Sequence[int], target: Sequence[int]) -> Float[Tensor, "T V"]:
    """Float64 logits at the position before each target token."""
    # Offloaded weights are nowhere at the moment; their model takes its inputs on the CPU.
    device = "cpu" if model.device.type == "meta" else model.device
    if model.config.is_encoder_decoder:
        before, read = _decoder_start(model), {"input_ids": torch.tensor([[*prompt]], device=device)}
        name = "decoder_input_ids"
    else:
        before, read, name = tuple(prompt), {}, "input_ids"
    read[name] = torch.tensor([[*before, *target[:-1]]], device=device)
    found: Tensor = model(**read, use_cache=False).logits[0, len(before) - 1 :]
    return found.to("cpu", torch.float64)


def _decoder_start(model: PreTrainedModel) -> tuple[int, ...]:
    """The tokens with which a decoder begins, as the generation configuration says."""
    config = model.generation_config
    assert config is not None
    forced = config.forced_bos_token_id
    return (config.decoder_start_token_id, *(() if forced is None else (forced,)))


def log_probs(model: PreTrainedModel, prompt: Sequence[int], target: Sequence[int]) -> Float[Tensor, " T"]:
    """Log-probability of each target token."""
    return logits(model, prompt, target).log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)]


def sequence_and_tokens(model: PreTrainedModel, prompt: Sequence[int], target: Sequence[int]) -> Float[Tensor, " K"]:
    """The sum, then each token: the values of the target function ``log_prob`` for one prompt."""
    found = log_probs(model, prompt, target)
    return torch.cat([found.sum()[None], found])

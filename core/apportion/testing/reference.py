"""The plain way to score a target: one prompt at a time, whole, uncached, all logits, reduced in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel


@torch.no_grad()
def log_probs(model: PreTrainedModel, prompt: Sequence[int], target: Sequence[int]) -> Tensor:
    """Float[T]: log-probability of each target token."""
    ids = torch.tensor([[*prompt, *target[:-1]]])
    logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 :].double()
    return logits.log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)]


def sequence_and_tokens(model: PreTrainedModel, prompt: Sequence[int], target: Sequence[int]) -> Tensor:
    """Float[1 + T]: the sum, then each token."""
    found = log_probs(model, prompt, target).double()
    return torch.cat([found.sum()[None], found])

"""The likelihood of the target, as its logarithm or as a probability."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.targets import Needs, Scores, Target

__all__ = ["LogProb", "Prob"]


class LogProb:
    """``[Σ log pₜ, log p₁ … log p_T]``, where pₜ is given the prompt and the target tokens before t."""

    needs = Needs.LOG_PROBS

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Natural logarithms."""
        assert scores.log_probs is not None
        log_probs = scores.log_probs.double()
        return torch.cat([log_probs.sum(1, keepdim=True), log_probs], dim=1)


class Prob(LogProb):
    """The exponential of every entry of ``LogProb``."""

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Probabilities in [0, 1]."""
        return super().__call__(scores, target).exp()

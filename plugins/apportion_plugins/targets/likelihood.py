"""Likelihood of the target, as log-probability, probability, cross-entropy or perplexity."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.targets import Needs, Scores, Target
from apportion_plugins.targets.columns import summed

__all__ = ["CrossEntropy", "LogProb", "Perplexity", "Prob"]

LESS_LIKELY = "makes the target less likely"


class LogProb:
    """Log-probability ``[Σ log pₜ, log p₁ … log p_T]``, where pₜ is conditional on the prompt and earlier tokens."""

    needs = Needs.LOG_PROBS
    unit = "nats"
    label = "log-probability of the target"
    additive = True

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Natural logarithms."""
        assert scores.log_probs is not None
        return summed(scores.log_probs)


class Prob(LogProb):
    """Probability of the target, and of each token: the exponential of every entry of ``LogProb``."""

    unit = "probability"
    label = "probability of the target"
    additive = False

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Probabilities in [0, 1]."""
        return super().__call__(scores, target).exp()


class CrossEntropy(LogProb):
    """Surprisal of the target, ``-log p``. A feature with a positive value makes the target *less* likely."""

    unit = "nats"
    label = "cross-entropy of the target"
    rise = LESS_LIKELY

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Negative natural logarithms."""
        return -super().__call__(scores, target)


class Perplexity(LogProb):
    """Perplexity: ``exp`` of the mean cross-entropy of the target's tokens, and of each token's own; at least 1.

    Inseq raises 2, not e, to a cross-entropy in nats, so its numbers differ.
    """

    unit = "perplexity"
    label = "perplexity of the target"
    additive = False
    rise = LESS_LIKELY

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Perplexities: the number of equally likely tokens that would be as hard to predict."""
        surprise = -super().__call__(scores, target)
        surprise[:, 0] /= len(target.ids)
        return surprise.exp()

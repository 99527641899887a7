"""The likelihood of the target: its logarithm, probability, cross-entropy or perplexity."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.targets import Needs, Scores, Target
from apportion_plugins.targets.columns import summed

__all__ = ["CrossEntropy", "LogProb", "Perplexity", "Prob"]


class LogProb:
    """``[Σ log pₜ, log p₁ … log p_T]``, where pₜ is given the prompt and the target tokens before t."""

    needs = Needs.LOG_PROBS
    unit = "nats"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Natural logarithms."""
        assert scores.log_probs is not None
        return summed(scores.log_probs)


class Prob(LogProb):
    """The probability of the target, and of each token: the exponential of every entry of ``LogProb``."""

    unit = "probability"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Probabilities in [0, 1]."""
        return super().__call__(scores, target).exp()


class CrossEntropy(LogProb):
    """``-log p``, the surprisal of the target. A feature with a positive value makes the target *less* likely."""

    unit = "nats"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Negative natural logarithms."""
        return -super().__call__(scores, target)


class Perplexity(LogProb):
    """``exp`` of the mean cross-entropy of the target's tokens, and of each token's own; at least 1.

    Inseq raises 2, not e, to a cross-entropy in nats, which gives another number.
    """

    unit = "perplexity"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Numbers of equally likely tokens that would be as hard to predict."""
        surprise = -super().__call__(scores, target)
        surprise[:, 0] /= len(target.ids)
        return surprise.exp()

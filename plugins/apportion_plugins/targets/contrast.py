"""Contrastive target functions: why this and not that (Yin and Neubig 2022, arXiv 2202.10419).

Target and contrast are scored after the same prompt, each token given the preceding tokens of its own text. For values
of single tokens, the two are aligned from the left. A target token past the contrast's end is compared with 0, and
contrast tokens past the target's end count only towards the whole target.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.targets import Needs, Scores, Target
from apportion_plugins.targets.columns import aligned, chosen_logits, columns

__all__ = ["ContrastLogProbDiff", "ContrastLogits", "ContrastLogitsDiff", "ContrastProb", "ContrastProbDiff"]


class ContrastLogProbDiff:
    """Log-odds of the target against the contrast, ``log p(target) − log p(contrast)``, in nats."""

    needs = Needs.LOG_PROBS
    contrastive = True
    unit = "nats"
    label = "log-odds of the target over the contrast"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Differences of the sums over all tokens, and of aligned tokens."""
        return _difference(*_log_probs(scores))


class ContrastProb:
    """Probability of the contrast, and of each of its tokens; 0 past its end."""

    needs = Needs.LOG_PROBS
    contrastive = True
    unit = "probability"
    label = "probability of the contrast"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Probabilities in [0, 1]."""
        ours, theirs = _log_probs(scores)
        return columns(theirs.sum(1).exp(), aligned(theirs.exp(), ours.shape[1]))


class ContrastProbDiff:
    """Difference in probability, ``p(target) − p(contrast)``."""

    needs = Needs.LOG_PROBS
    contrastive = True
    unit = "probability"
    label = "probability of the target minus that of the contrast"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Differences in [−1, 1]."""
        ours, theirs = _log_probs(scores)
        whole = ours.sum(1).exp() - theirs.sum(1).exp()
        return columns(whole, ours.exp() - aligned(theirs.exp(), ours.shape[1]))


class ContrastLogits:
    """Logits of the contrast's tokens, and their sum; 0 past its end."""

    needs = Needs.LOGITS
    contrastive = True
    unit = "logits"
    label = "total logit of the contrast"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Logits before the softmax."""
        ours, theirs = _logits(scores, target)
        return columns(theirs.sum(1), aligned(theirs, ours.shape[1]))


class ContrastLogitsDiff:
    """Logits of the target minus those of the contrast; log-odds for single tokens, where the normaliser cancels."""

    needs = Needs.LOGITS
    contrastive = True
    unit = "logits"
    label = "total logit of the target minus that of the contrast"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Differences of the sums over all tokens, and of aligned tokens."""
        return _difference(*_logits(scores, target))


def _log_probs(scores: Scores) -> tuple[Float[Tensor, "S T"], Float[Tensor, "S C"]]:
    assert scores.log_probs is not None and scores.contrast is not None and scores.contrast.log_probs is not None
    return scores.log_probs.double(), scores.contrast.log_probs.double()


def _logits(scores: Scores, target: Target) -> tuple[Float[Tensor, "S T"], Float[Tensor, "S C"]]:
    assert scores.logits is not None and scores.contrast is not None and scores.contrast.logits is not None
    assert target.contrast is not None
    return chosen_logits(scores.logits, target), chosen_logits(scores.contrast.logits, target.contrast)


def _difference(ours: Float[Tensor, "S T"], theirs: Float[Tensor, "S C"]) -> Float[Tensor, "S K"]:
    return columns(ours.sum(1) - theirs.sum(1), ours - aligned(theirs, ours.shape[1]))

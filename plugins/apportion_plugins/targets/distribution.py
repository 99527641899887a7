"""Functions of the whole next-token distribution: logits, entropy, the size of the nucleus."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.protocols.targets import Needs, Scores, Target
from apportion_plugins.targets.columns import chosen_logits, columns, expectation, summed

__all__ = ["Entropy", "Logit", "TopPSize", "check_top_p", "nucleus"]

LESS_CERTAIN = "makes the model less certain"


class Logit:
    """Logit of each target token, and their sum. Logits are not comparable across prompts; prefer ``log_prob``."""

    needs = Needs.LOGITS
    unit = "logits"
    label = "total logit of the target"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Logits before the softmax."""
        assert scores.logits is not None
        return summed(chosen_logits(scores.logits, target))


class Entropy:
    """Entropy ``-Σ p log p`` of the distribution at each target position, in nats, and their sum.

    It measures the model's uncertainty, independent of the target token. The paper behind Captum's LLM attribution
    (arXiv 2312.05491, section 3.1.4) uses it as an example of a custom function.
    """

    needs = Needs.LOGITS
    unit = "nats"
    label = "entropy of the next-token distribution"
    rise = LESS_CERTAIN

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Entropies between 0 and log V."""
        assert scores.logits is not None
        log_probs = scores.logits.log_softmax(-1)
        return summed(-expectation(log_probs, log_probs))


class TopPSize:
    """Size of the nucleus, the smallest number of tokens with total probability ``top_p`` (Holtzman et al. 2020).

    Args:
        top_p: the total probability, above 0 and at most 1.

    Raises:
        InputError: ``top_p`` is out of range.
    """

    needs = Needs.LOGITS
    unit = "tokens"
    rise = LESS_CERTAIN

    def __init__(self, *, top_p: float = 0.9) -> None:
        self.top_p = check_top_p(top_p)

    @property
    def label(self) -> str:
        """Quantity that the values measure."""
        return f"number of most likely tokens with a total probability of {self.top_p:g}"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Counts at each target position, and their mean for the whole target."""
        assert scores.logits is not None
        sizes = nucleus(scores.logits, self.top_p).sum(-1).double()
        return columns(sizes.mean(1), sizes)


def check_top_p(top_p: float) -> float:
    """Check a total probability.

    Raises:
        InputError: ``top_p`` is not a number above 0 and at most 1.
    """
    if isinstance(top_p, bool) or not isinstance(top_p, int | float) or math.isnan(top_p) or not 0 < top_p <= 1:
        raise InputError(f"top_p={top_p!r} must be a probability, above 0 and at most 1.")
    return float(top_p)


def nucleus(logits: Float[Tensor, "S T V"], top_p: float) -> Tensor:
    """Mask of the fewest most likely tokens with total probability ``top_p``, at least one. ``Bool[S, T, V]``."""
    ordered, places = logits.softmax(-1).sort(-1, descending=True)
    # A token belongs to the nucleus if the total probability of the tokens before it is below top_p; sums are rounded.
    inside = (ordered.cumsum(-1) - ordered < top_p) & (ordered > 0)
    return torch.zeros_like(inside).scatter(-1, places, inside)

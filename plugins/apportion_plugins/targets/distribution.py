"""Functions of the whole next-token distribution: logits, entropy, the size of the nucleus."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.protocols.targets import Needs, Scores, Target
from apportion_plugins.targets.columns import chosen_logits, columns, summed

__all__ = ["Entropy", "Logit", "TopPSize", "check_top_p", "nucleus"]


class Logit:
    """The logit of each target token, and their sum. Different prompts share no scale of logits: prefer log_prob."""

    needs = Needs.LOGITS
    unit = "logits"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Logits before the softmax."""
        assert scores.logits is not None
        return summed(chosen_logits(scores.logits, target))


class Entropy:
    """``-Σ p log p`` of the distribution at each target position, in nats, and their sum.

    It measures the model's uncertainty, whichever token is the target. It is the custom function in the paper behind
    Captum's LLM attribution (arXiv 2312.05491, section 3.1.4).
    """

    needs = Needs.LOGITS
    unit = "nats"

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Entropies between 0 and log V."""
        assert scores.logits is not None
        log_probs = scores.logits.log_softmax(-1)
        # p log p is 0 where p is 0, although log p is -inf there.
        return summed(-(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1))


class TopPSize:
    """Size of the nucleus: the number of tokens that hold a share of the probability (Holtzman et al. 2020).

    Args:
        top_p: the share, above 0 and at most 1.

    Raises:
        InputError: ``top_p`` is out of range.
    """

    needs = Needs.LOGITS
    unit = "tokens"

    def __init__(self, *, top_p: float = 0.9) -> None:
        self.top_p = check_top_p(top_p)

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S K"]:
        """Counts at each target position, and their mean for the whole target."""
        assert scores.logits is not None
        sizes = nucleus(scores.logits, self.top_p).sum(-1).double()
        return columns(sizes.mean(1), sizes)


def check_top_p(top_p: float) -> float:
    """Check a share of the probability.

    Raises:
        InputError: it is not a number above 0 and at most 1.
    """
    if isinstance(top_p, bool) or not isinstance(top_p, int | float) or math.isnan(top_p) or not 0 < top_p <= 1:
        raise InputError(f"top_p={top_p!r} must be a share of the probability, above 0 and at most 1.")
    return float(top_p)


def nucleus(logits: Float[Tensor, "S T V"], top_p: float) -> Tensor:
    """The smallest set of most likely tokens that holds ``top_p``; at least one token. ``Bool[S, T, V]``."""
    ordered, places = logits.softmax(-1).sort(-1, descending=True)
    # A token belongs to it while the tokens before it hold less than the share.
    inside = ordered.cumsum(-1) - ordered < top_p
    return torch.zeros_like(inside).scatter(-1, places, inside)

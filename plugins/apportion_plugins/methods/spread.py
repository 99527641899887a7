"""Standard errors of means."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

__all__ = ["error_of_mean"]


def error_of_mean(samples: Float[Tensor, C * rest]) -> Float[Tensor, "*rest"]:
    """Of the mean of independent samples; NaN for one.

    With few samples a normal interval is too short: the errors are widened by the ratio of Student's quantile to the
    normal one, so that ± 1.96 of them cover 95 % however few samples there are.
    """
    count = len(samples)
    if count < 2:
        return torch.full_like(samples[0], torch.nan)
    widened = float(stdtrit(count - 1, 0.975) / 1.959964)
    error: Tensor = samples.std(0) * (widened / count**0.5)
    return error

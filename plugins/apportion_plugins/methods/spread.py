"""Standard errors of means."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

__all__ = ["error_of_mean", "moves_of_mean"]


def error_of_mean(samples: Float[Tensor, C * rest]) -> Float[Tensor, "*rest"]:
    """Standard error of the mean of independent samples; NaN for a single one.

    With few samples, a normal interval is too short. The errors are scaled by the ratio of Student's quantile to the
    normal one, so that ± 1.96 of them cover 95 % for any number of samples.
    """
    if len(samples) < 2:
        return torch.full_like(samples[0], torch.nan)
    error: Tensor = moves_of_mean(samples).square().sum(0).sqrt()
    return error


def moves_of_mean(samples: Float[Tensor, C * rest]) -> Float[Tensor, C * rest]:
    """Contribution of each of two or more samples to the error of their mean; the squares add up to its square."""
    count = len(samples)
    widened = float(stdtrit(count - 1, 0.975) / 1.959964)
    moves: Tensor = (samples - samples.mean(0)) * (widened / (count * (count - 1)) ** 0.5)
    return moves

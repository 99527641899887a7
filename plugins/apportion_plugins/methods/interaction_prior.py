"""A prior over interactions: a Gaussian process on coalitions whose kernel is a product over features.

Let x be +1 for a feature that is present and −1 for one that is absent. Every game is a sum of products of x over sets
of features. The prior gives the coefficient of a set T the variance Π_{i∈T} aᵢ, so strong features interact strongly,
and larger sets less. Covariances of coalitions then have a closed form. So do Shapley values, which depend only on sets
of odd size (OddSHAP, arXiv 2602.01399). Single features are excluded here: they are the trend, which has no prior.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "LARGEST",
    "covariance",
    "covariance_gradient",
    "equal_shapley_covariance",
    "shapley_covariance",
    "shapley_variance",
    "signs",
]

LARGEST = 0.97
"""Upper bound on a. At 1, sets of all sizes would count alike and covariances would be degenerate."""

MOST_FACTORS = 2**22
"""Number of factors of products that are in memory at once."""


def signs(mask: Bool[Tensor, "S F"]) -> Float[Tensor, "S F"]:
    """+1 where a feature is present, −1 where it is absent."""
    return mask.double() * 2 - 1


def covariance(
    strength: Float[Tensor, " F"], left: Float[Tensor, "P F"], right: Float[Tensor, "Q F"]
) -> tuple[Float[Tensor, "P Q"], Float[Tensor, "P Q"]]:
    """Covariances of the parts of a game that stem from sets of 3, 5, … and of 2, 4, … features.

    Args:
        strength: a, between 0 and 1.
        left: coalitions as signs.
        right: coalitions as signs.
    """
    sinh, cosh = _products(strength, left, right)
    return sinh - (left * strength) @ right.T, cosh - 1


def _products(
    strength: Float[Tensor, " F"], left: Float[Tensor, "P F"], right: Float[Tensor, "Q F"]
) -> tuple[Float[Tensor, "P Q"], Float[Tensor, "P Q"]]:
    """The parts of Π (1 + aᵢ xᵢ yᵢ) that stem from sets of odd and of even size."""
    # Π (1 + aᵢ xᵢ yᵢ) = exp(Σ ½ log(1 − aᵢ²) + Σ artanh(aᵢ) xᵢ yᵢ), because xᵢ yᵢ is +1 or −1; of complements, the sum
    # has the other sign. With hundreds of features, either factor alone may leave the range of floats.
    scale = (0.5 * torch.log1p(-(strength**2))).sum()
    exponent = (left * torch.atanh(strength)) @ right.T
    same, opposite = (scale + exponent).exp(), (scale - exponent).exp()
    return (same - opposite) / 2, (same + opposite) / 2


def covariance_gradient(
    strength: Float[Tensor, " F"],
    at: Float[Tensor, "P F"],
    odd: Float[Tensor, "P P"],
    even: Float[Tensor, "P P"],
) -> Float[Tensor, " F"]:
    """Gradient with respect to the strengths, from the gradients ``odd`` and ``even`` of the covariances of ``at``."""
    sinh, cosh = _products(strength, at, at)
    by_scale = -strength * ((odd * sinh).sum() + (even * cosh).sum())
    by_product = (((odd * cosh + even * sinh) @ at) * at).sum(0)
    return (by_scale + by_product) / (1 - strength**2) - ((odd @ at) * at).sum(0)


def shapley_covariance(strength: Float[Tensor, " F"], at: Float[Tensor, "P F"]) -> Float[Tensor, "P F"]:
    """Covariances of the values of coalitions with Shapley values, for the part from sets of 3, 5, … features.

    The product over an odd set T contributes 2/|T| to each member of T. The factor 1/|T| equals ∫ s^(|T|−1) ds,
    which Gauss–Legendre quadrature computes exactly.
    """
    nodes, weights = _gauss_legendre(strength.shape[0] // 2 + 1)
    integral = torch.empty_like(at)
    at_once = max(1, MOST_FACTORS // (len(nodes) * at.shape[1]))
    for start in range(0, len(at), at_once):
        factors = 1 + nodes[:, None, None] * (at[start : start + at_once] * strength)  # Q × P × F, never 0
        others = factors.prod(2, keepdim=True) / factors
        integral[start : start + at_once] = torch.einsum("q,qpf->pf", weights, others)
    return at * strength * (integral - 2)


def equal_shapley_covariance(strength: float, at: Float[Tensor, "P F"]) -> Float[Tensor, "P F"]:
    """``shapley_covariance`` for features of equal strength, where only the number of present features matters."""
    n = at.shape[1]
    nodes, weights = _gauss_legendre(n // 2 + 1)
    # Row k of each table: k of the n − 1 other features are present.
    k = torch.arange(n, dtype=torch.float64)[:, None]
    logs = k * torch.log1p(nodes * strength) + (n - 1 - k) * torch.log1p(-nodes * strength)
    integral = logs.exp() @ weights
    here = at > 0
    others = here.sum(1, keepdim=True) - here.long()
    return at * strength * (integral[others] - 2)


@functools.lru_cache(maxsize=16)
def _gauss_legendre(count: int) -> tuple[Float[Tensor, " Q"], Float[Tensor, " Q"]]:
    """Nodes and weights, cached because they are expensive to compute; do not modify them."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def shapley_variance(strength: Float[Tensor, " F"]) -> Float[Tensor, " F"]:
    """Variances of Shapley values for the part from sets of 3, 5, … features: 4 Σ_{T∋i} Π_{j∈T} aⱼ / |T|²."""
    n = len(strength)
    # Row i: elementary symmetric polynomials of the other strengths, one feature at a time.
    sums = torch.zeros(n, n + 1, dtype=strength.dtype)
    sums[:, 0] = 1
    for j in range(n):
        grown = sums.clone()
        grown[:, 1:] += strength[j] * sums[:, :-1]
        grown[j] = sums[j]
        sums = grown
    sizes = torch.arange(1, n + 2)
    share = torch.where((sizes % 2 == 1) & (sizes >= 3), 4 / sizes.double() ** 2, 0.0)
    return strength * (sums @ share)

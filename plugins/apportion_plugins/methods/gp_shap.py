"""Shapley values of a Gaussian process that learns how strongly each feature interacts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import stdtrit
from torch import Tensor

from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate, Sampler
from apportion_plugins.methods.exact import exact_estimate
from apportion_plugins.methods.interaction_prior import (
    LARGEST,
    covariance,
    covariance_gradient,
    shapley_covariance,
    shapley_variance,
    signs,
)
from apportion_plugins.methods.regression import default_budget, require_determined
from apportion_plugins.methods.shapley import shapley_of_table

__all__ = ["GaussianProcessShap"]

ROUNDS = 40
MOST_PAIRS = 96
"""From which strengths are learned; with more pairs the time grows, and the strengths hardly change."""

SMALLEST = 1e-3
"""Of the strengths: below, covariances would be lost in rounding."""

JITTER = 1e-6
"""Added to the diagonal, as a share of its mean: keeps factors of nearly equal rows finite."""

NOTHING = 1e-20
"""Left over from the trend, as a share of all squares: rounding."""


class GaussianProcessShap:
    """Shapley values from paired coalitions by generalised least squares, interactions being a Gaussian process.

    ``kernel_shap`` takes what its additive fit leaves over as noise. Here it is what it is, interactions of features,
    which coalitions that have much in common share: v is a linear trend, free, and a Gaussian process with a product
    kernel (``interaction_prior``), whose strengths, one for each feature, maximise the restricted likelihood. The
    values are the Shapley values of its posterior mean, in closed form. As the coalitions come in pairs they are
    exact for games without interactions of three or more features, like those of ``kernel_shap``; the error goes to 0
    as the coalitions become all, and the values are exact where the budget allows them all.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()

    def run(
        self, game: Game, *, budget: int | None, rng: torch.Generator, sampler: str | Sampler = "informative"
    ) -> Estimate:
        """Posterior means and their standard deviations, one fit for each output on one set of coalitions.

        Args:
            game: what to ask.
            budget: the most distinct coalitions; ``None`` for 16 times the number of features, and 64 at least.
            rng: draws the coalitions.
            sampler: ``"informative"``, ``"leverage"``, ``"kernel"``, or another that draws coalitions in pairs; those
                of a single one are completed.

        Raises:
            BudgetError: the budget does not determine the trend: 2F evaluations, or 2^F if that is less.
        """
        n = game.n_features
        budget = default_budget(n) if budget is None else budget
        if 2**n <= budget:
            return exact_estimate(game, shapley_of_table)
        require_determined(n, budget)
        assert isinstance(sampler, Sampler), "a name arrives as the sampler itself"
        half = _one_of_each_pair(sampler.sample(n, budget - 2, rng).mask, budget // 2)
        values = game.values(torch.cat([half, ~half]))
        present, absent = values[: len(half)], values[len(half) :]
        fits = [
            _fit(signs(half), (present[:, k] - absent[:, k]) / 2, (present[:, k] + absent[:, k]) / 2)
            for k in range(game.n_outputs)
        ]
        found = torch.stack([fit.values for fit in fits], 1)
        # Jitter keeps the process from going through its points to the last digit.
        gap = present[0] - absent[0] - found.sum(0)
        return Estimate(found + gap / n, torch.stack([fit.std_error for fit in fits], 1))


def _one_of_each_pair(mask: Bool[Tensor, "S F"], most: int) -> Bool[Tensor, "P F"]:
    """Distinct coalitions that have the first feature, the full one first: each stands for its complement, too."""
    full = torch.ones(1, mask.shape[1], dtype=torch.bool)
    rows = torch.cat([full, torch.where(mask[:, :1], mask, ~mask)])
    distinct = dict.fromkeys(tuple(row) for row in rows.tolist())
    return torch.tensor(list(distinct)[:most], dtype=torch.bool)


@dataclass(frozen=True)
class _Fit:
    """Of one output."""

    values: Float[Tensor, " F"]
    std_error: Float[Tensor, " F"]


@dataclass(frozen=True)
class _Solved:
    """Generalised least squares for one covariance.

    Attributes:
        factor: Cholesky factor of the covariance.
        trend: the trend's columns, whitened.
        gram: trendᵀ trend.
        coefficients: of the trend.
        rest: whitened residuals.
        freedom: residuals less coefficients.
    """

    factor: Float[Tensor, "P P"]
    trend: Float[Tensor, "P Q"]
    gram: Float[Tensor, "Q Q"]
    coefficients: Float[Tensor, " Q"]
    rest: Float[Tensor, " P"]
    freedom: int

    @property
    def squares(self) -> Float[Tensor, ""]:
        """Of the whitened residuals, summed."""
        return self.rest.square().sum()

    @property
    def log_determinants(self) -> Float[Tensor, ""]:
        """What the restricted likelihood takes off, twice."""
        return 2 * self.factor.diagonal().log().sum() + torch.logdet(self.gram)

    def slope(self, share: float) -> Float[Tensor, "P P"]:
        """Of half the sum of ``log_determinants`` and ``share`` times ``squares``, by each covariance."""
        inverse = torch.linalg.solve_triangular(
            self.factor, torch.eye(len(self.rest), dtype=torch.float64), upper=False
        )
        seen = self.trend.T @ inverse
        projected = inverse.T @ inverse - seen.T @ torch.linalg.solve(self.gram, seen)
        weights = inverse.T @ self.rest
        slopes: Tensor = 0.5 * (projected - share * weights[:, None] * weights)
        return slopes


def _solve(covariances: Float[Tensor, "P P"], trend: Float[Tensor, "P Q"], response: Float[Tensor, " P"]) -> _Solved:
    jitter = JITTER * covariances.diagonal().mean() * torch.eye(len(covariances), dtype=torch.float64)
    factor = torch.linalg.cholesky(covariances + jitter)
    white = torch.linalg.solve_triangular(factor, torch.cat([trend, response[:, None]], 1), upper=False)
    columns, right = white[:, :-1], white[:, -1]
    gram = columns.T @ columns
    coefficients = torch.linalg.solve(gram, columns.T @ right)
    return _Solved(factor, columns, gram, coefficients, right - columns @ coefficients, len(trend) - trend.shape[1])


def _fit(at: Float[Tensor, "P F"], difference: Float[Tensor, " P"], mean: Float[Tensor, " P"]) -> _Fit:
    """Shapley values and standard errors from half the difference and the mean of each pair."""
    # Few pairs may leave directions of the trend open; its coefficients are 0 there, and the errors unknown.
    basis = _directions(at)
    trend = at @ basis
    plain = torch.linalg.lstsq(trend, difference[:, None]).solution[:, 0]
    if bool((difference - trend @ plain).square().sum() <= NOTHING * (difference.square() + mean.square()).sum()):
        unknown = len(at) <= trend.shape[1] or trend.shape[1] < at.shape[1]
        values = 2 * basis @ plain
        return _Fit(values, torch.full_like(values, torch.nan if unknown else 0.0))
    strength = _strengths(at, trend, difference, mean)
    solved = _solve(covariance(strength, at, at)[0], trend, difference)
    with_shapley = torch.linalg.solve_triangular(solved.factor, shapley_covariance(strength, at), upper=False)
    values = 2 * basis @ solved.coefficients + with_shapley.T @ solved.rest
    if solved.freedom < 1 or trend.shape[1] < at.shape[1]:
        return _Fit(values, torch.full_like(values, torch.nan))
    # The variance given all coefficients of the trend, and what not knowing these adds.
    given = shapley_variance(strength) - with_shapley.square().sum(0)
    missing = 2 * basis.T - solved.trend.T @ with_shapley
    added = (missing * torch.linalg.solve(solved.gram, missing)).sum(0)
    scale = solved.squares / solved.freedom
    widened = float(stdtrit(solved.freedom, 0.975) / 1.959964)
    return _Fit(values, (scale * (given.clamp_min(0) + added)).sqrt() * widened)


def _directions(at: Float[Tensor, "P F"]) -> Float[Tensor, "F R"]:
    """Orthonormal directions of the trend that the coalitions tell."""
    _, size, directions = torch.linalg.svd(at, full_matrices=False)
    told: Tensor = directions[size > 1e-9 * size[0]].T
    return told


def _strengths(
    at: Float[Tensor, "P F"], trend: Float[Tensor, "P R"], difference: Float[Tensor, " P"], mean: Float[Tensor, " P"]
) -> Float[Tensor, " F"]:
    """The strengths of the largest restricted likelihood times a prior of a factor of e around their common level.

    Differences of pairs hold the interactions of odd sizes, means those of even sizes; both tell how strong they are.
    """
    n = at.shape[1]
    most = max(MOST_PAIRS, 2 * n)
    at, trend, difference, mean = at[:most], trend[:most], difference[:most], mean[:most]
    usual = min(0.3, 3 / n)
    start = math.log(usual / (1 - usual))
    constant = torch.ones(len(at), 1, dtype=torch.float64)

    def strength(free: Float[Tensor, " F+1"]) -> Float[Tensor, " F"]:
        return torch.sigmoid(start + free[0] + free[1:]).clamp(SMALLEST, LARGEST)

    def loss(point: Float[np.ndarray, " F+1"]) -> tuple[float, Float[np.ndarray, " F+1"]]:
        free = torch.from_numpy(point)
        strengths = strength(free)
        odd, even = covariance(strengths, at, at)
        parts = _solve(odd, trend, difference), _solve(even, constant, mean)
        freedom = sum(part.freedom for part in parts)
        squares = sum(float(part.squares) for part in parts)
        determinants = sum(float(part.log_determinants) for part in parts)
        prior = torch.cat([free[:1] / 4, free[1:]])
        value = 0.5 * (freedom * math.log(squares) + determinants + float(prior @ free))
        slopes = covariance_gradient(strengths, at, *(part.slope(freedom / squares) for part in parts))
        inside = (strengths > SMALLEST) & (strengths < LARGEST)
        slopes = torch.where(inside, slopes * strengths * (1 - strengths), 0.0)
        return value, (torch.cat([slopes.sum()[None], slopes]) + prior).numpy()

    found = minimize(loss, np.zeros(n + 1), jac=True, method="L-BFGS-B", options={"maxiter": ROUNDS})
    return strength(torch.from_numpy(found.x))

"""Shapley values from a Gaussian process that learns how strongly each feature interacts."""

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
"""Maximum number of pairs used to learn the strengths; more take longer and hardly change them."""

SMALLEST = 1e-3
"""Lower bound on strengths; below it, covariances would be lost in rounding."""

JITTER = 1e-6
"""Added to the diagonal, as a share of its mean, so that nearly equal rows can be factorised."""

NOTHING = 1e-20
"""Residual share of the sum of squares that counts as rounding error."""


class GaussianProcessShap:
    """Shapley values by generalised least squares on paired coalitions, with a Gaussian process for interactions.

    ``kernel_shap`` treats the residuals of its additive fit as noise. They are in fact interactions of features, and
    similar coalitions share them. This method models v as an unconstrained linear trend plus a Gaussian process with a
    product kernel (``interaction_prior``). The kernel has one strength per feature; the strengths maximise the
    restricted likelihood of the whole target, and serve every output, so that the values of the target's tokens add up to
    those of the whole. The values are the Shapley values of the posterior mean, in closed form.

    Because coalitions come in pairs, the values are exact for games without interactions of three or more features,
    like those of ``kernel_shap``. The error goes to 0 as the coalitions approach all of them; if the budget allows all
    coalitions, the values are exact.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()

    def run(
        self, game: Game, *, budget: int | None, rng: torch.Generator, sampler: str | Sampler = "informative"
    ) -> Estimate:
        """Compute posterior means and standard deviations of all outputs from one set of coalitions.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions; ``None`` for 16 per feature, but at least 64.
            rng: draws the coalitions.
            sampler: ``"informative"``, ``"leverage"``, ``"kernel"``, or another that draws coalitions in pairs;
                missing complements are added.

        Raises:
            BudgetError: the budget is below 2F (or 2^F if that is less), so the trend is not determined.
        """
        n = game.n_features
        budget = default_budget(n) if budget is None else budget
        if 2**n <= budget:
            return exact_estimate(game, shapley_of_table)
        require_determined(n, budget)
        assert isinstance(sampler, Sampler), "sampler names are resolved before the call"
        half = _one_of_each_pair(sampler.sample(n, budget - 2, rng).mask, budget // 2)
        values = game.values(torch.cat([half, ~half]))
        present, absent = values[: len(half)], values[len(half) :]
        found, error = _fit(signs(half), (present - absent) / 2, (present + absent) / 2)
        # Because of the jitter, the process does not interpolate its points exactly.
        gap = present[0] - absent[0] - found.sum(0)
        return Estimate(found + gap / n, error)


def _one_of_each_pair(mask: Bool[Tensor, "S F"], most: int) -> Bool[Tensor, "P F"]:
    """Distinct coalitions that contain the first feature, the full one first; each represents its complement too."""
    full = torch.ones(1, mask.shape[1], dtype=torch.bool)
    rows = torch.cat([full, torch.where(mask[:, :1], mask, ~mask)])
    distinct = dict.fromkeys(tuple(row) for row in rows.tolist())
    return torch.tensor(list(distinct)[:most], dtype=torch.bool)


@dataclass(frozen=True)
class _Solved:
    """The solution of generalised least squares for one covariance.

    Attributes:
        factor: Cholesky factor of the covariance.
        trend: whitened design matrix of the trend.
        gram: trendᵀ trend.
        coefficients: coefficients of the trend, for each of K responses.
        rest: whitened residuals.
        freedom: degrees of freedom, the number of residuals minus that of coefficients.
    """

    factor: Float[Tensor, "P P"]
    trend: Float[Tensor, "P Q"]
    gram: Float[Tensor, "Q Q"]
    coefficients: Float[Tensor, "Q K"]
    rest: Float[Tensor, "P K"]
    freedom: int

    @property
    def squares(self) -> Float[Tensor, " K"]:
        """Sum of squared whitened residuals of each response."""
        return self.rest.square().sum(0)

    @property
    def log_determinants(self) -> Float[Tensor, ""]:
        """Twice the log-determinant terms of the restricted likelihood."""
        return 2 * self.factor.diagonal().log().sum() + torch.logdet(self.gram)

    def slope(self, share: float) -> Float[Tensor, "P P"]:
        """Gradient of (``log_determinants`` + ``share`` · ``squares``) / 2 by each covariance, for one response."""
        inverse = torch.linalg.solve_triangular(
            self.factor, torch.eye(len(self.rest), dtype=torch.float64), upper=False
        )
        seen = self.trend.T @ inverse
        projected = inverse.T @ inverse - seen.T @ torch.linalg.solve(self.gram, seen)
        weights = inverse.T @ self.rest
        slopes: Tensor = 0.5 * (projected - share * weights @ weights.T)
        return slopes


def _solve(covariances: Float[Tensor, "P P"], trend: Float[Tensor, "P Q"], response: Float[Tensor, "P K"]) -> _Solved:
    jitter = JITTER * covariances.diagonal().mean() * torch.eye(len(covariances), dtype=torch.float64)
    factor = torch.linalg.cholesky(covariances + jitter)
    white = torch.linalg.solve_triangular(factor, torch.cat([trend, response], 1), upper=False)
    columns, right = white[:, : trend.shape[1]], white[:, trend.shape[1] :]
    gram = columns.T @ columns
    coefficients = torch.linalg.solve(gram, columns.T @ right)
    return _Solved(factor, columns, gram, coefficients, right - columns @ coefficients, len(trend) - trend.shape[1])


def _fit(
    at: Float[Tensor, "P F"], difference: Float[Tensor, "P K"], mean: Float[Tensor, "P K"]
) -> tuple[Float[Tensor, "F K"], Float[Tensor, "F K"]]:
    """Shapley values and their standard errors, from half the differences and the means of pairs."""
    # Few pairs may leave the trend undetermined in some directions; coefficients are 0 there and errors unknown.
    basis = _directions(at)
    trend = at @ basis
    determined = len(at) > trend.shape[1] == at.shape[1]
    plain = torch.linalg.lstsq(trend, difference).solution
    left = (difference - trend @ plain).square().sum(0)
    additive = left <= NOTHING * (difference.square() + mean.square()).sum(0)
    if bool(additive.all()):
        values = 2 * basis @ plain
        return values, torch.full_like(values, 0.0 if determined else torch.nan)
    learnt = [int((~additive).int().argmax())]  # the whole target, unless there is nothing to learn from it
    strength = _strengths(at, trend, difference[:, learnt], mean[:, learnt])
    solved = _solve(covariance(strength, at, at)[0], trend, difference)
    with_shapley = torch.linalg.solve_triangular(solved.factor, shapley_covariance(strength, at), upper=False)
    values = 2 * basis @ solved.coefficients + with_shapley.T @ solved.rest
    if not determined:
        return values, torch.full_like(values, torch.nan)
    # The variance for known trend coefficients, plus the contribution of their uncertainty.
    given = shapley_variance(strength) - with_shapley.square().sum(0)
    missing = 2 * basis.T - solved.trend.T @ with_shapley
    added = (missing * torch.linalg.solve(solved.gram, missing)).sum(0)
    scale = torch.where(additive, 0.0, solved.squares / solved.freedom)
    widened = float(stdtrit(solved.freedom, 0.975) / 1.959964)
    return values, ((given.clamp_min(0) + added)[:, None] * scale).sqrt() * widened


def _directions(at: Float[Tensor, "P F"]) -> Float[Tensor, "F R"]:
    """Orthonormal directions of the trend that the coalitions determine."""
    _, size, directions = torch.linalg.svd(at, full_matrices=False)
    told: Tensor = directions[size > 1e-9 * size[0]].T
    return told


def _strengths(
    at: Float[Tensor, "P F"], trend: Float[Tensor, "P R"], difference: Float[Tensor, "P 1"], mean: Float[Tensor, "P 1"]
) -> Float[Tensor, " F"]:
    """Strengths that maximise the restricted likelihood times a prior.

    Under the prior, the odds of a strength vary by a factor of e around a common level. Differences of pairs contain
    the interactions of odd size, means those of even size; both are informative about the strengths.
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

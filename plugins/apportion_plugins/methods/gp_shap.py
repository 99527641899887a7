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
FARTHEST = 8.0
"""Largest logarithm of an odds ratio, relative to where the search starts."""

MORE_PAIRS = 96
"""Maximum number of pairs used to learn the prior, beyond one per feature; more take longer and hardly change it."""

SMALLEST = 1e-3
"""Lower bound on strengths; below it, covariances would be lost in rounding."""

JITTER = 1e-6
"""Added to the diagonal, as a share of its mean, so that nearly equal rows can be factorised."""

NOISE = 1e-3
"""Usual variance of what depends on the whole coalition, relative to that of the interactions."""

JACKKNIFE = 0.5
"""Least share of the jackknife's error. The posterior assumes that the game varies alike everywhere, and is too sure
where it does not; the jackknife does not assume it, but is about twice too large, because coalitions are few."""

NOTHING = 1e-20
"""Residual share of the sum of squares that counts as rounding error."""


class GaussianProcessShap:
    """Shapley values by generalised least squares on paired coalitions, with a Gaussian process for interactions.

    ``kernel_shap`` treats the residuals of its additive fit as noise. They are in fact interactions of features, and
    similar coalitions share them. This method models v as an unconstrained linear trend plus a Gaussian process with a
    product kernel (``interaction_prior``), and noise for what no few features explain. The kernel has one strength per
    feature; strengths and noise maximise the restricted likelihood of the whole target, and serve every output, so that
    the values of the target's tokens add up to those of the whole. The values are the Shapley values of the posterior
    mean, in closed form.

    Because coalitions come in pairs, the values are exact for games without interactions of three or more features,
    like those of ``kernel_shap``; if the budget allows all coalitions, they are exact. Its own time grows with the cube
    of the number of features or pairs, whichever is larger: seconds for 500 features, minutes for 2,000 pairs.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "budget (default max(64, 16 F))"

    def run(
        self, game: Game, *, budget: int | None, rng: torch.Generator, sampler: str | Sampler = "informative"
    ) -> Estimate:
        """Compute posterior means and standard errors of all outputs from one set of coalitions.

        Errors are posterior standard deviations, but at least half of those of a jackknife over the pairs.

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


@dataclass(frozen=True)
class _Prior:
    """Properties of the process that are learnt from the values.

    Attributes:
        strength: how strongly each feature interacts.
        noise: variance of the noise, relative to that of the interactions.
    """

    strength: Float[Tensor, " F"]
    noise: float

    def covariances(self, at: Float[Tensor, "P F"]) -> tuple[Float[Tensor, "P P"], Float[Tensor, "P P"]]:
        """Covariances of half the differences and of the means of pairs."""
        odd, even = covariance(self.strength, at, at)
        noise = self.noise * (odd[0, 0] + even[0, 0]) * torch.eye(len(at), dtype=torch.float64)
        return odd + noise, even + noise


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
    prior = _learnt(at, trend, difference[:, learnt], mean[:, learnt])
    solved = _solve(prior.covariances(at)[0], trend, difference)
    with_shapley = torch.linalg.solve_triangular(solved.factor, shapley_covariance(prior.strength, at), upper=False)
    values = 2 * basis @ solved.coefficients + with_shapley.T @ solved.rest
    if not determined:
        return values, torch.full_like(values, torch.nan)
    # The variance for known trend coefficients, plus the contribution of their uncertainty.
    given = shapley_variance(prior.strength) - with_shapley.square().sum(0)
    missing = 2 * basis.T - solved.trend.T @ with_shapley
    added = (missing * torch.linalg.solve(solved.gram, missing)).sum(0)
    scale = torch.where(additive, 0.0, solved.squares / solved.freedom)
    widened = float(stdtrit(solved.freedom, 0.975) / 1.959964)
    posterior = ((given.clamp_min(0) + added)[:, None] * scale).sqrt() * widened
    influence = missing.T @ torch.linalg.solve(solved.gram, solved.trend.T) + with_shapley.T
    return values, torch.maximum(posterior, JACKKNIFE * torch.where(additive, 0.0, _jackknife(solved, influence)))


def _jackknife(solved: _Solved, influence: Float[Tensor, "F P"]) -> Float[Tensor, "F K"]:
    """Errors from the changes of the values when one pair after another is left out and the prior stays as it is.

    Args:
        solved: the fit of all pairs.
        influence: derivatives of the values with respect to the whitened responses.
    """
    inverse = torch.linalg.solve_triangular(
        solved.factor, torch.eye(len(solved.rest), dtype=torch.float64), upper=False
    )
    seen = solved.trend.T @ inverse
    whole = inverse.square().sum(0)
    precision = whole - (seen * torch.linalg.solve(solved.gram, seen)).sum(0)
    # A pair that alone determines a direction of the trend cannot be predicted from the others.
    told = precision > 1e-9 * whole
    left_out = torch.where(told[:, None], inverse.T @ solved.rest / precision[:, None], 0.0)
    error: Tensor = ((influence @ inverse).square() @ left_out.square()).sqrt()
    return error


def _directions(at: Float[Tensor, "P F"]) -> Float[Tensor, "F R"]:
    """Orthonormal directions of the trend that the coalitions determine."""
    _, size, directions = torch.linalg.svd(at, full_matrices=False)
    told: Tensor = directions[size > 1e-9 * size[0]].T
    return told


def _learnt(
    at: Float[Tensor, "P F"], trend: Float[Tensor, "P R"], difference: Float[Tensor, "P 1"], mean: Float[Tensor, "P 1"]
) -> _Prior:
    """The prior that maximises the restricted likelihood times a prior of its own.

    There, the odds of a strength vary by a factor of e around a common level, and the noise by one of e². Differences
    of pairs contain the interactions of odd size, means those of even size; both are informative.
    """
    n = at.shape[1]
    most = n + MORE_PAIRS
    at, trend, difference, mean = at[:most], trend[:most], difference[:most], mean[:most]
    usual = min(0.3, 3 / n)
    start = math.log(usual / (1 - usual))
    constant = torch.ones(len(at), 1, dtype=torch.float64)
    # Shared level, strengths, noise: free parameters and the variances of all but the noise around 0.
    spread = torch.cat([torch.tensor([4.0]), torch.ones(n), torch.tensor([4.0])]).double()

    def prior(free: Float[Tensor, " Q"]) -> _Prior:
        strength = torch.sigmoid(start + free[0] + free[1:-1]).clamp(SMALLEST, LARGEST)
        return _Prior(strength, NOISE * float(free[-1].exp()))

    def loss(point: Float[np.ndarray, " Q"]) -> tuple[float, Float[np.ndarray, " Q"]]:
        free = torch.from_numpy(point)
        assumed = prior(free)
        odd, even = assumed.covariances(at)
        parts = _solve(odd, trend, difference), _solve(even, constant, mean)
        freedom = sum(part.freedom for part in parts)
        squares = sum(float(part.squares) for part in parts)
        determinants = sum(float(part.log_determinants) for part in parts)
        value = 0.5 * (freedom * math.log(squares) + determinants + float((free**2 / spread).sum()))
        by_strength, by_noise = _slopes(assumed, at, *(part.slope(freedom / squares) for part in parts))
        inside = (assumed.strength > SMALLEST) & (assumed.strength < LARGEST)
        by_odds = torch.where(inside, by_strength * assumed.strength * (1 - assumed.strength), 0.0)
        return value, (torch.cat([by_odds.sum()[None], by_odds, by_noise[None]]) + free / spread).numpy()

    found = minimize(
        loss, np.zeros(n + 2), jac=True, method="L-BFGS-B", bounds=[(-FARTHEST, FARTHEST)] * (n + 2),
        options={"maxiter": ROUNDS},
    )  # fmt: skip
    return prior(torch.from_numpy(found.x))


def _slopes(
    prior: _Prior, at: Float[Tensor, "P F"], odd: Float[Tensor, "P P"], even: Float[Tensor, "P P"]
) -> tuple[Float[Tensor, " F"], Float[Tensor, ""]]:
    """Gradients by the strengths and by the logarithm of the noise, from those by the covariances."""
    # The noise is a share of the variance, which is the same in every place of the diagonal.
    on_diagonal = prior.noise * (odd.trace() + even.trace())
    shared = on_diagonal / len(at) * torch.eye(len(at), dtype=torch.float64)
    variance = sum(part[0, 0] for part in covariance(prior.strength, at[:1], at[:1]))
    return covariance_gradient(prior.strength, at, odd + shared, even + shared), on_diagonal * variance

"""Coalitions chosen to be informative about Shapley values, given those chosen before."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.protocols.methods import Coalitions
from apportion_plugins.methods.interaction_prior import covariance, equal_shapley_covariance, signs
from apportion_plugins.samplers.leverage import weighted_for_shapley
from apportion_plugins.samplers.tables import inner_coalitions

__all__ = ["InformativeSampler"]

POOL = 64
"""Number of random candidates for each pair."""

CHOSEN, CHOSEN_EACH = 128, 2
"""Number of pairs that are chosen, in all and per feature (the larger counts). Later pairs are random: there is little
left to gain then, and the time to choose grows quadratically with the number of pairs."""

STRENGTH = 3.0
"""Assumed interaction strength times the number of features; the strength is at most 0.3."""

TREND = 100.0
"""Assumed variance of main effects, relative to the prior on interactions."""


class InformativeSampler:
    """Draws pairs of a coalition and its complement, each the most informative of a few random candidates.

    The most informative pair is the one that most reduces the total variance of the Shapley values, under the prior of
    ``gp_shap`` (``methods/interaction_prior.py``) with equal strengths: a greedy A-optimal design. The choice does not
    depend on the game. A larger budget with the same seed draws the same pairs and more. Use it with ``gp_shap``;
    least squares assumes random coalitions, and these are not random.
    """

    name = "informative"

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """Draw coalitions other than the empty and the full one, with the weights of the sampler ``leverage``.

        Raises:
            BudgetError: the budget is below 2, or there is only one feature.
        """
        everything = inner_coalitions(n_features, budget)
        if everything is not None:
            return everything
        search = _Search(n_features, rng)
        half = torch.stack([search.next() for _ in range(budget // 2)]) > 0
        return weighted_for_shapley(half)


class _Search:
    """Posterior of the Shapley values given the pairs so far: a Cholesky factor that grows by a row per pair."""

    def __init__(self, n: int, rng: torch.Generator) -> None:
        self._n, self._rng = n, rng
        self._equal = min(0.3, STRENGTH / n)
        self._strength = torch.full((n,), self._equal, dtype=torch.float64)
        self._linear = TREND * self._strength
        full = torch.ones(1, n, dtype=torch.float64)
        # Prior variance, the same for every coalition.
        self._own = covariance(self._strength, full, full)[0][0, 0] + self._linear.sum()
        self._chosen = torch.empty(0, n, dtype=torch.float64)
        self._factor = torch.empty(0, 0, dtype=torch.float64)
        self._known = torch.empty(0, n, dtype=torch.float64)
        self._seen: set[bytes] = set()
        # The empty and the full coalition are always evaluated.
        self._take(full, 0)

    def next(self) -> Float[Tensor, " F"]:
        """Choose the next pair and return one of its coalitions as signs."""
        chosen = len(self._seen) < max(CHOSEN, CHOSEN_EACH * self._n)
        pool = self._candidates(POOL if chosen else 1)
        if not chosen:
            self._seen.add(_keys(pool)[0])
            return pool[0]
        across, left, gain = self._view(pool)
        return self._take(pool, int((gain.square().sum(1) / left).argmax()), (across, left, gain))

    def _candidates(self, count: int) -> Float[Tensor, "Q F"]:
        """Up to ``count`` random coalitions that are new, at least one, with uniform sizes."""
        while True:
            sizes = torch.randint(1, self._n, (count, 1), generator=self._rng)
            ranks = torch.rand(count, self._n, generator=self._rng).argsort(1).argsort(1)
            rows = signs(ranks < sizes)
            new = [row for row, key in enumerate(_keys(rows)) if key not in self._seen]
            if new:
                return rows[new]

    def _view(
        self, pool: Float[Tensor, "Q F"]
    ) -> tuple[Float[Tensor, "P Q"], Float[Tensor, " Q"], Float[Tensor, "Q F"]]:
        """For each candidate: its row of the factor, and its posterior variance and covariance with Shapley values."""
        among = covariance(self._strength, self._chosen, pool)[0] + (self._chosen * self._linear) @ pool.T
        across = torch.linalg.solve_triangular(self._factor, among, upper=False)
        left = (self._own - across.square().sum(0)).clamp_min(1e-6 * self._own)
        gain = equal_shapley_covariance(self._equal, pool) + 2 * self._linear * pool - across.T @ self._known
        return across, left, gain

    def _take(
        self, pool: Float[Tensor, "Q F"], row: int, view: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Float[Tensor, " F"]:
        across, left, gain = view or self._view(pool)
        deviation = left[row].sqrt()
        count = len(self._chosen)
        factor = torch.zeros(count + 1, count + 1, dtype=torch.float64)
        factor[:count, :count] = self._factor
        factor[count, :count], factor[count, count] = across[:, row], deviation
        self._factor = factor
        self._known = torch.cat([self._known, gain[row : row + 1] / deviation])
        self._chosen = torch.cat([self._chosen, pool[row : row + 1]])
        self._seen.add(_keys(pool[row : row + 1])[0])
        return pool[row]


def _keys(rows: Float[Tensor, "Q F"]) -> list[bytes]:
    """Keys that are the same for a coalition and its complement."""
    packed = np.packbits((rows == rows[:, :1]).numpy(), axis=1)
    return [row.tobytes() for row in packed]

"""The contract of faithfulness metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.hooks.object_check import object_faults
from apportion.protocols.metrics import Measurement, Metric
from apportion.testing import games
from apportion.testing.contract import Contract
from apportion.testing.games import KnownGame
from apportion.testing.randomness import generator, only_its_own_generator

__all__ = ["MetricContract"]

SEEDS = 24


class MetricContract(Contract):
    """Contract of metrics. Subclass it, provide a fixture ``metric``, and set attributes that describe your metric.

    Attributes:
        options: metric options that all checks use.
        sampled: the metric draws from ``rng``.
        budget: maximum number of distinct evaluations for a game with ten features.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    sampled: ClassVar[bool] = False
    budget: ClassVar[int] = 256

    @pytest.fixture
    def metric(self) -> Metric:
        """Your metric."""
        raise NotImplementedError("Define a fixture `metric` that returns your metric.")

    def measure(self, metric: Metric, known: KnownGame, values: Float[Tensor, " F"], seed: int = 0) -> Measurement:
        """Measure these values, and check the measurement."""
        game = Game.from_function(known, known.n)
        before = values.clone()
        found = metric.measure(game, values, rng=generator(seed), **self.options)
        assert isinstance(found, Measurement), f"measure() returned {type(found).__name__}, not a Measurement."
        assert isinstance(found.value, float), f"The value must be a float; it is {found.value!r}."
        assert math.isfinite(found.value), f"The value is {found.value} for {known.n} features ({known.name})."
        assert torch.equal(values, before), "It changed the values that it was given."
        assert game.evaluations <= self.budget, (
            f"{game.evaluations} evaluations of {known.n} features exceed `budget`, which is {self.budget}."
        )
        return found

    def mean(self, metric: Metric, known: KnownGame, values: Float[Tensor, " F"]) -> float:
        """The mean over seeds, for metrics that sample."""
        seeds = range(SEEDS if self.sampled else 1)
        return sum(self.measure(metric, known, values, seed).value for seed in seeds) / len(seeds)

    def test_it_says_what_it_is(self, metric: Metric) -> None:
        """Direction, signature, and documentation of every option."""
        faults = object_faults("metrics", metric)
        assert not faults, f"{type(metric).__name__} {' '.join(faults)}"

    @pytest.mark.parametrize("n", [1, 2, 3, 10])
    def test_any_number_of_features(self, metric: Metric, n: int) -> None:
        """The metric works with 1 to 10 features within the budget, and with values that are all equal."""
        known = games.random_moebius(n, min(n, 3))
        self.measure(metric, known, known.shapley)
        self.measure(metric, known, torch.zeros(n, dtype=torch.float64))

    def test_the_truth_is_better_than_its_opposite(self, metric: Metric) -> None:
        """In a game without interactions, the true effects score better than the same effects with reversed signs."""
        known = games.KnownGame("additive", 8, {(i,): w for i, w in enumerate((5, 3, 2, 1, 0.5, -0.5, -1, -2))})
        right, wrong = (self.mean(metric, known, sign * known.shapley) for sign in (1, -1))
        better = right > wrong if metric.higher_is_better else right < wrong
        assert better, (
            f"The truth measures {right:.4g} and its opposite {wrong:.4g}, but higher_is_better is "
            f"{metric.higher_is_better}."
        )

    def test_a_constant_changes_nothing(self, metric: Metric) -> None:
        """A constant added to all scores does not change the measurement."""
        known = games.random_moebius(7, 2, seed=1)
        plain, shifted = (self.measure(metric, game, known.shapley).value for game in (known, known.plus(50.0)))
        assert abs(plain - shifted) < 1e-6, f"A constant of 50 changed the measure from {plain} to {shifted}."

    def test_names_of_features_do_not_matter(self, metric: Metric) -> None:
        """The order of the features does not change the measurement, up to sampling error."""
        known, order = games.random_moebius(7, 2, seed=2), [4, 2, 0, 5, 1, 3, 6]
        renamed = torch.empty(7, dtype=torch.float64)
        renamed[order] = known.shapley
        plain, other = self.mean(metric, known, known.shapley), self.mean(metric, known.permuted(order), renamed)
        allowed = 0.35 * abs(plain) + 0.05 if self.sampled else 1e-9
        assert abs(plain - other) <= allowed, (
            f"The measure is {plain} in one order of the features, {other} in another."
        )

    def test_the_seed_decides_everything(self, metric: Metric) -> None:
        """The same seed gives the same measurement, and global random generators are unchanged."""
        known = games.random_moebius(8, 3)
        with only_its_own_generator():
            first = self.measure(metric, known, known.shapley, 1).value
            other = self.measure(metric, known, known.shapley, 2).value
        assert first == self.measure(metric, known, known.shapley, 1).value, "The same seed gave a different value."
        if not self.sampled:
            assert first == other, "Two seeds gave different values; set `sampled = True` for a metric that samples."

    def test_values_without_errors_are_exact(self, metric: Metric) -> None:
        """A value without a standard error depends on no seed."""
        known = games.random_moebius(10, 3)
        first, other = (self.measure(metric, known, known.shapley, seed) for seed in (1, 2))
        if first.std_error is None and other.std_error is None:
            assert first.value == other.value, (
                "Two seeds gave different values. Without a standard error, a value counts as exact. Return std_error, "
                "NaN if it is unknown."
            )

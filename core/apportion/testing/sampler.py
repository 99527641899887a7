"""The contract of samplers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
import torch

from apportion.errors import BudgetError
from apportion.hooks.object_check import object_faults
from apportion.protocols.methods import Coalitions, Sampler
from apportion.testing.contract import Contract
from apportion.testing.randomness import assert_mean, generator, only_its_own_generator

__all__ = ["SamplerContract"]

BUDGETS = (1, 2, 3, 6, 10, 16, 31, 64, 200)
LARGE_BUDGET = 10_000
SEEDS = 40

SHARES: Mapping[str, Callable[[int, int], float]] = {
    "Shapley value": lambda n, size: 1 / (size * (n - size)) if 0 < size < n else 0.0,
    "Banzhaf value": math.comb,
}
"""The weighted share of coalitions of each size for an estimand, up to a factor."""


class SamplerContract(Contract):
    """Contract of samplers. Subclass it and provide a fixture ``sampler``.

    Attributes:
        symmetric: all features are treated alike.
        budget: number of coalitions for a regression over eight features.
    """

    symmetric: ClassVar[bool] = True
    budget: ClassVar[int] = 40

    @pytest.fixture
    def sampler(self) -> Sampler:
        """Your sampler."""
        raise NotImplementedError("Define a fixture `sampler` that returns your sampler.")

    def draw(self, sampler: Sampler, n: int, budget: int, seed: int = 0) -> Coalitions:
        """Draw as methods do, and check dtype, shapes, weights and the number of distinct coalitions."""
        drawn = sampler.sample(n, budget, generator(seed))
        assert isinstance(drawn, Coalitions), f"sample() returned {type(drawn).__name__}, not Coalitions."
        mask, weight = drawn.mask, drawn.weight
        assert mask.dtype == torch.bool, f"The mask must be a bool tensor; it is {mask.dtype}."
        assert mask.ndim == 2, f"The mask must be [S, F]; it is {list(mask.shape)}."
        assert mask.shape[1] == n, f"The mask has {mask.shape[1]} columns for {n} features."
        assert len(mask) > 0, f"No coalition was drawn with a budget of {budget} for {n} features."
        assert tuple(weight.shape) == (len(mask),), f"{len(mask)} coalitions have weights of {list(weight.shape)}."
        assert weight.is_floating_point(), f"Weights must be floating-point numbers; they are {weight.dtype}."
        assert bool(torch.isfinite(weight).all()), f"Weights must be finite: {weight.tolist()}."
        assert bool((weight > 0).all()), f"Weights must be above 0 (omit other coalitions): {weight.tolist()}."
        distinct = len(torch.unique(mask, dim=0))
        assert distinct <= budget, f"{distinct} distinct coalitions of {n} features with a budget of {budget}."
        return drawn

    def test_it_says_what_it_is(self, sampler: Sampler) -> None:
        """Signature and docstring."""
        faults = object_faults("samplers", sampler)
        assert not faults, f"{type(sampler).__name__} {' '.join(faults)}"

    @pytest.mark.parametrize("n", [1, 2, 3, 8, 40])
    def test_the_budget_is_kept(self, sampler: Sampler, n: int) -> None:
        """There are at most ``budget`` distinct coalitions; if the budget is too small, the error states it."""
        ran = False
        for budget in (*BUDGETS, LARGE_BUDGET):
            try:
                self.draw(sampler, n, budget)
                ran = True
            except BudgetError as error:
                assert str(budget) in str(error), f"The message must state the budget: {error}"
        # With one feature, there is nothing to draw between the empty and the full coalition.
        assert ran or n == 1, f"It rejects every budget up to {LARGE_BUDGET} for {n} features."

    def test_the_seed_decides_everything(self, sampler: Sampler) -> None:
        """The same seed draws the same coalitions, another seed draws others, and global generators are unchanged."""
        with only_its_own_generator():
            first, other = (self.draw(sampler, 10, self.budget, seed) for seed in (1, 2))
        with torch.random.fork_rng():
            torch.manual_seed(12345)
            again = self.draw(sampler, 10, self.budget, 1)
        assert torch.equal(first.mask, again.mask), "The same seed drew different coalitions the second time."
        assert torch.equal(first.weight, again.weight), "The same seed gave different weights the second time."
        assert not torch.equal(first.mask, other.mask), "Two seeds drew the same coalitions. Draw from `rng`."

    def test_every_feature_is_in_and_out(self, sampler: Sampler) -> None:
        """Each feature is present in some coalitions and absent from others, so that its effect can be estimated."""
        drawn = self.draw(sampler, 8, self.budget)
        there = drawn.mask.double().mean(0)
        stuck = ((there == 0) | (there == 1)).nonzero().flatten().tolist()
        assert not stuck, f"Feature {stuck[0]} is {'always' if there[stuck[0]] else 'never'} present."

    def test_no_feature_is_preferred(self, sampler: Sampler) -> None:
        """Over many seeds, all features have the same weighted share of the coalitions."""
        if not self.symmetric:
            pytest.skip("this sampler prefers some features (`symmetric = False`)")
        shares = []
        for seed in range(SEEDS):
            drawn = self.draw(sampler, 8, self.budget, seed)
            weight = drawn.weight.double() / drawn.weight.sum()
            shares.append(weight @ drawn.mask.double())
        samples = torch.stack(shares)
        assert_mean(samples, samples.mean().expand(8), "the weighted share of coalitions with each feature")

    def test_it_draws_for_what_it_declares(self, sampler: Sampler) -> None:
        """Over many seeds, coalitions of each size have the weighted share that belongs to the declared estimands."""
        declared = [name for name in getattr(sampler, "estimands", ()) if name in SHARES]
        if not declared:
            pytest.skip("this sampler declares neither Shapley nor Banzhaf values in `estimands`")
        n, found = 8, []
        for seed in range(SEEDS):
            drawn = self.draw(sampler, n, self.budget, seed)
            by_size = torch.zeros(n + 1, dtype=torch.float64)
            by_size.index_add_(0, drawn.mask.sum(1), drawn.weight.double())
            found.append(by_size / by_size.sum())
        for name in declared:
            shares = torch.tensor([SHARES[name](n, size) for size in range(n + 1)], dtype=torch.float64)
            assert_mean(torch.stack(found), shares / shares.sum(), f"the weight of each size, for the {name},")

"""Shapley values from random orders."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.backend import Capability
from apportion.errors import BudgetError, InputError
from apportion.game import Game
from apportion.methods import Estimate
from apportion_plugins.samplers.permutation import chain, random_orders

__all__ = ["PermutationShapley"]

DEFAULT_PERMUTATIONS = 26
"""13 antithetic pairs; Captum's ShapleyValueSampling walks 25 orders."""

ENOUGH_PERMUTATIONS = 1024
"""Orders after which to stop when a budget allows every coalition."""


class PermutationShapley:
    """The mean marginal contribution along random orders (Castro et al. 2009; Captum's ShapleyValueSampling).

    Antithetic pairs (Mitchell et al., arXiv 2104.12199) put every order beside its reverse: unbiased, and
    exact after one pair for games without interactions of three or more features. Coalitions that several
    orders visit are scored once.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        antithetic: bool = True,
        n_permutations: int | None = None,
    ) -> Estimate:
        """Estimates and their standard errors, from the spread over orders (or pairs of orders).

        With one order or pair the standard errors are NaN: unknown.

        Args:
            game: what to ask.
            budget: the most distinct coalitions; as many orders as fit are walked.
            rng: draws one ``randperm`` for each order or pair.
            antithetic: follow each order by its reverse; ``False`` repeats Captum's draws.
            n_permutations: how many orders, reverses included; when neither this nor a budget is given, 26.

        Raises:
            BudgetError: not even one order (or pair) fits the budget.
            InputError: ``n_permutations`` is not positive, or odd with ``antithetic``.
        """
        orders = self._orders(game.n_features, budget, rng, antithetic, n_permutations)
        samples = _marginals(game, orders)
        if antithetic:
            samples = samples.reshape(-1, 2, *samples.shape[1:]).mean(1)
        error = samples.std(0) / len(samples) ** 0.5 if len(samples) > 1 else torch.full_like(samples[0], torch.nan)
        if game.n_features == 1:
            error = torch.zeros_like(error)  # there is one order only
        return Estimate(samples.mean(0), error, extras={"n_permutations": len(orders)})

    def _orders(
        self, n: int, budget: int | None, rng: torch.Generator, antithetic: bool, count: int | None
    ) -> Int[Tensor, "C F"]:
        step = 2 if antithetic else 1
        if count is not None and (isinstance(count, bool) or count < 1 or count % step):
            even = ", an even number because orders come in pairs (antithetic=True)" if antithetic else ""
            raise InputError(f"n_permutations={count!r} must be a positive whole number{even}.")
        if budget is None:
            return random_orders(n, count or DEFAULT_PERMUTATIONS, rng, antithetic=antithetic)
        seen: set[bytes] = set()
        orders: list[Tensor] = []
        # When every coalition is known, more orders cost no evaluations; a thousand of them are enough.
        while len(orders) < (count or budget) and not (len(seen) == 2**n and len(orders) >= ENOUGH_PERMUTATIONS):
            drawn = random_orders(n, step, rng, antithetic=antithetic)
            visited = {bytes(row) for order in drawn for row in chain(order).to(torch.uint8).tolist()}
            if len(seen | visited) > budget:
                break
            seen |= visited
            orders.extend(drawn)
        if not orders:
            least = min(2**n, step * (n - 1) + 2)
            raise BudgetError(
                f"{'A pair of orders' if antithetic else 'One order'} of {n} features visits {least} coalitions, and "
                f"the budget is {budget}. Raise it to {least} or more ({2 * step * (n - 1) + 2} for standard errors), "
                f"or use method='ablation' ({n + 1})."
            )
        return torch.stack(orders)


def _marginals(game: Game, orders: Int[Tensor, "C F"]) -> Float[Tensor, "C F K"]:
    """What each feature adds when it joins, along each order."""
    chains = torch.stack([chain(order) for order in orders])
    values = game.values(chains.flatten(0, 1)).reshape(*chains.shape[:2], game.n_outputs)
    gains = values[:, 1:] - values[:, :-1]
    marginals = torch.empty_like(gains)
    return marginals.scatter_(1, orders[:, :, None].expand_as(gains), gains)

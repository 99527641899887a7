"""Shapley values from random permutations."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.errors import InputError, counted, shown_number
from apportion.game.game import Game
from apportion.options import true_or_false
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.bootstrap import replicates_of
from apportion_plugins.methods.exact import exact_estimate
from apportion_plugins.methods.shapley import shapley_of_table
from apportion_plugins.methods.spread import error_of_mean, moves_of_mean
from apportion_plugins.samplers.permutation import chain, orders_within_budget, random_orders

__all__ = ["PermutationShapley"]

DEFAULT_PERMUTATIONS = 26
"""13 antithetic pairs; Captum's ShapleyValueSampling uses 25 permutations."""

MOST_CELLS = 500_000_000
"""Maximum number of mask entries along all orders, one byte each."""


class PermutationShapley:
    """The mean marginal contribution along random orders (Castro et al. 2009; Captum's ShapleyValueSampling).

    Antithetic pairs (Mitchell et al., arXiv 2104.12199) combine every order with its reverse. The estimates are
    unbiased, and exact after one pair for games without interactions of three or more features. Coalitions that
    several orders visit are scored once. If the budget allows every coalition, the values are exact.
    """

    estimand = "Shapley value"
    requires: frozenset[Capability] = frozenset()
    family, cost = "perturbation", "budget (default 26 orders of F)"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        antithetic: bool = True,
        n_permutations: int | None = None,
    ) -> Estimate:
        """Estimate values, and standard errors from the spread over orders (or pairs of orders).

        With few samples, a normal interval is too short. The errors are therefore scaled by the ratio of Student's
        quantile to the normal one, so that ± 1.96 standard errors cover 95 % for any number of samples. With only one
        order or pair they are unknown (NaN).

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions; as many orders as fit are used.
            rng: draws one ``randperm`` per order or pair.
            antithetic: follow each order by its reverse; ``False`` reproduces Captum's draws.
            n_permutations: number of orders, including reverses; 26 if neither this nor a budget is given.

        Raises:
            BudgetError: not even one order (or pair) fits the budget.
            InputError: ``n_permutations`` is not positive, or is odd although ``antithetic`` is set.
        """
        n = game.n_features
        true_or_false("antithetic", antithetic)
        _check_count(n_permutations, antithetic, n)
        if budget is not None and n_permutations is None and 2**n <= budget:
            return exact_estimate(game, shapley_of_table)
        notes: tuple[str, ...] = ()
        if budget is None:
            orders = random_orders(n, n_permutations or DEFAULT_PERMUTATIONS, rng, antithetic=antithetic)
        else:
            orders = orders_within_budget(n, budget, rng, antithetic=antithetic, most=n_permutations).orders
            if n_permutations is not None and len(orders) < n_permutations:
                notes = (f"only {len(orders)} of the {n_permutations} requested permutations fit the budget",)
        samples = _marginals(game, orders)
        if antithetic:
            samples = samples.reshape(-1, 2, *samples.shape[1:]).mean(1)
        # A single feature has only one order.
        error = error_of_mean(samples) if n > 1 else torch.zeros_like(samples[0])
        values, extras = samples.mean(0), {"n_permutations": len(orders)}
        replicates = replicates_of(values[:, 0], moves_of_mean(samples[:, :, 0])) if len(samples) > 1 else None
        return Estimate(values, error, extras=extras, notes=notes, replicates=replicates)


def _check_count(count: int | None, antithetic: bool, n_features: int) -> None:
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int) or count < 1 or count % (2 if antithetic else 1):
        even = ", an even number because orders come in pairs (antithetic=True)" if antithetic else ""
        shown = shown_number(count) if isinstance(count, int) else repr(count)
        raise InputError(f"n_permutations={shown} must be a positive whole number{even}.")
    if count * (n_features + 1) ** 2 > MOST_CELLS:
        raise InputError(
            f"n_permutations={shown_number(count)} orders of {counted(n_features, 'feature')} do not fit into memory. "
            "Use fewer, or set a budget instead."
        )


def _marginals(game: Game, orders: Int[Tensor, "C F"]) -> Float[Tensor, "C F K"]:
    """Marginal contribution of each feature along each order."""
    chains = torch.stack([chain(order) for order in orders])
    values = game.values(chains.flatten(0, 1)).reshape(*chains.shape[:2], game.n_outputs)
    gains = values[:, 1:] - values[:, :-1]
    marginals = torch.empty_like(gains)
    return marginals.scatter_(1, orders[:, :, None].expand_as(gains), gains)

"""Owen values of nested groups: exact from tables, or sampled from random orders that keep groups together."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apportion.game.game import Game
from apportion_plugins.methods.spread import error_of_mean, moves_of_mean
from apportion_plugins.methods.tree import Node
from apportion_plugins.samplers.permutation import chain, random_orders
from apportion_plugins.samplers.tables import all_coalitions

__all__ = ["ExactOwen", "SampledOwen"]


class ExactOwen:
    """Exact Owen values: every coalition of siblings, in every context of their parent."""

    estimand = "Owen value"

    def __init__(self, game: Game) -> None:
        self._game = game
        self.values: dict[Node, Float[Tensor, " K"]] = {}
        self.errors: dict[Node, Float[Tensor, " K"]] = {}
        self.moves: dict[Node, Float[Tensor, " D"]] = {}
        # Contexts of a group (coalitions that may be present around it) and their weights.
        self._contexts: dict[Node, tuple[Bool[Tensor, "C F"], Float[Tensor, " C"]]] = {}

    def questions(self, node: Node) -> Bool[Tensor, "S F"]:
        """Each coalition of the children in each context, ordered by context."""
        contexts, _ = self._around(node)
        inner = self._inner(node)
        return (contexts[:, None] | inner[None]).flatten(0, 1)

    def look_into(self, node: Node) -> None:
        """Score the children; their coalitions have been evaluated."""
        contexts, weight = self._around(node)
        count = len(node.children)
        table = self._game.values(self.questions(node)).reshape(len(contexts), 2**count, -1)
        inner, coalitions = self._inner(node), all_coalitions(count)
        numbers = torch.arange(2**count)
        share = torch.tensor([1 / (count * math.comb(count - 1, s)) for s in range(count)], dtype=torch.float64)
        for i, child in enumerate(node.children):
            without = numbers[(numbers >> i) & 1 == 0]
            each = share[coalitions[without].sum(1)]
            gains = table[:, without | (1 << i)] - table[:, without]
            self.values[child] = torch.einsum("c,s,csk->k", weight, each, gains)
            self._contexts[child] = (
                (contexts[:, None] | inner[without][None]).flatten(0, 1),
                (weight[:, None] * each[None]).flatten(),
            )

    def _around(self, node: Node) -> tuple[Bool[Tensor, "C F"], Float[Tensor, " C"]]:
        nothing = torch.zeros(1, self._game.n_features, dtype=torch.bool)
        return self._contexts.get(node, (nothing, torch.ones(1, dtype=torch.float64)))

    def _inner(self, node: Node) -> Bool[Tensor, "S F"]:
        parts = torch.stack([child.mask(self._game.n_features) for child in node.children])
        return (all_coalitions(len(parts)).double() @ parts.double()) > 0


class SampledOwen:
    """Sampled Owen values: marginal contributions along random orders of groups, of their parts, and so on.

    An order and its reverse, at every depth, form a pair. Standard errors come from the spread over pairs.
    """

    estimand = "Owen value"

    def __init__(self, game: Game, orders: int, rng: torch.Generator) -> None:
        self._game = game
        self._count = orders
        # Each group has a generator of its own, so that its orders do not depend on what was expanded before.
        self._seed = int(torch.randint(2**62, (), generator=rng))
        self.values: dict[Node, Float[Tensor, " K"]] = {}
        self.errors: dict[Node, Float[Tensor, " K"]] = {}
        self.moves: dict[Node, Float[Tensor, " D"]] = {}
        # Features present before a group joins, in each order.
        self._before: dict[Node, Bool[Tensor, "R F"]] = {}
        self._orders: dict[Node, Int[Tensor, "R C"]] = {}

    def questions(self, node: Node) -> Bool[Tensor, "S F"]:
        """Features present before the first child joins, after the first, …, after the last, for each order."""
        n = self._game.n_features
        before = self._before.get(node, torch.zeros(self._count, n, dtype=torch.bool))
        if node not in self._orders:
            rng = torch.Generator().manual_seed(self._seed + node.members[0] * n + len(node.members))
            self._orders[node] = random_orders(len(node.children), self._count, rng, antithetic=True)
        parts = torch.stack([child.mask(n) for child in node.children]).double()
        steps = torch.stack([chain(order) for order in self._orders[node]]).double() @ parts > 0
        return (before[:, None] | steps).flatten(0, 1)

    def look_into(self, node: Node) -> None:
        """Score the children; their coalitions have been evaluated."""
        asked = self.questions(node).reshape(self._count, len(node.children) + 1, -1)
        values = self._game.values(asked.flatten(0, 1)).reshape(*asked.shape[:2], -1)
        gains = values[:, 1:] - values[:, :-1]
        orders = self._orders[node]
        rows = torch.arange(self._count)
        for i, child in enumerate(node.children):
            turn = (orders == i).int().argmax(1)
            samples = gains[rows, turn].reshape(-1, 2, gains.shape[-1]).mean(1)
            self.values[child] = samples.mean(0)
            self.errors[child] = error_of_mean(samples)
            self.moves[child] = moves_of_mean(samples[:, 0])
            self._before[child] = asked[rows, turn]

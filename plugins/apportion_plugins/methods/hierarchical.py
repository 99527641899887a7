"""Drill-down: score the large parts of the prompt, then the parts of those that matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, InputError
from apportion.game.game import Game
from apportion.options import whole_number
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.bootstrap import replicates_of
from apportion_plugins.methods.owen import ExactOwen, SampledOwen
from apportion_plugins.methods.tree import Node, build_tree, exact_coalitions

__all__ = ["Hierarchical"]

DEFAULT_BUDGET = 256
CLOSE = 0.5
"""Groups that score at least this share of the highest score are expanded together, to fill batches."""


class Hierarchical:
    """Scores of nested groups: paragraphs, then the sentences of those that matter, then their words.

    Each step expands the groups that score highest, until the budget is spent or every feature has its own score.
    Features of a group that was not expanded share its score equally. ``extras["tree"]`` lists all groups with their
    scores, for the view ``tree``.

    Groups come from the prompt: the words of a text are nested in sentences, lines and paragraphs, the sentences of a
    conversation in turns. If a group has more parts than ``branching``, adjacent parts are merged into intermediate
    groups. Prompts without such levels can be drilled into as well.

    With ``scores="ablation"``, the score of a group is v(N) − v(N without it). With ``scores="owen"``, it is the Owen
    value (Owen 1977; with more than two levels, Winter 1989): the Shapley value if a group joins as a single player,
    whose worth its parts then divide. The Owen values of the parts add up to that of their group, and all of them to
    v(N) − v(∅).
    """

    estimand = "leave-one-out of nested groups"
    requires: frozenset[Capability] = frozenset()
    adaptive = True

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        scores: str = "ablation",
        branching: int = 8,
        orders: int = 12,
    ) -> Estimate:
        """Expand one group after another; Owen values are exact if the budget allows all the coalitions they need.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct coalitions; ``None`` for 256.
            rng: draws orders of groups for Owen values.
            scores: ``"ablation"`` or ``"owen"``.
            branching: maximum number of parts per group.
            orders: number of random orders behind each sampled Owen value, in pairs of an order and its reverse.

        Raises:
            InputError: ``scores`` is unknown, ``branching`` is below 2, or ``orders`` is odd or below 4.
            BudgetError: the budget is too small for the first step.
        """
        _check(scores, branching, orders)
        budget = DEFAULT_BUDGET if budget is None else budget
        root = build_tree(game.feature_names, game.levels, branching)
        if not root.children:  # a single feature
            root.children = [Node(root.members, game.feature_names[0], depth=1, parent=root)]
        scorer: _Scorer
        if scores == "ablation":
            scorer = _Ablation(game)
        elif min(exact_coalitions(root), 2**game.n_features) <= budget:
            scorer = ExactOwen(game)
        else:
            scorer = SampledOwen(game, orders, rng)
        _drill(root, scorer, game, budget)
        return _estimate(root, scorer, game)


@runtime_checkable
class _Scorer(Protocol):
    """Scores the children of one node after another."""

    estimand: str
    values: dict[Node, Float[Tensor, " K"]]
    errors: dict[Node, Float[Tensor, " K"]]
    moves: dict[Node, Float[Tensor, " D"]]
    """Contribution of each draw to the error for the whole target; all nodes share the same draws."""

    def questions(self, node: Node) -> Bool[Tensor, "S F"]:
        """The coalitions needed to score the children of a node."""
        ...

    def look_into(self, node: Node) -> None:
        """Score the children of a node whose coalitions have been evaluated."""
        ...


class _Ablation:
    """Scores groups by leave-one-out: v(N) − v(N without the group)."""

    estimand = Hierarchical.estimand

    def __init__(self, game: Game) -> None:
        self._game = game
        self.values: dict[Node, Float[Tensor, " K"]] = {}
        self.errors: dict[Node, Float[Tensor, " K"]] = {}
        self.moves: dict[Node, Float[Tensor, " D"]] = {}

    def questions(self, node: Node) -> Bool[Tensor, "S F"]:
        """The full coalition, and the full coalition without each child."""
        n = self._game.n_features
        without = [~child.mask(n) for child in node.children]
        return torch.stack([torch.ones(n, dtype=torch.bool), *without])

    def look_into(self, node: Node) -> None:
        """Score the children; their coalitions have been evaluated."""
        values = self._game.values(self.questions(node))
        self.values |= {child: values[0] - without for child, without in zip(node.children, values[1:], strict=True)}


def _check(scores: str, branching: int, orders: int) -> None:
    if scores not in ("ablation", "owen"):
        raise InputError(f"scores={scores!r} must be 'ablation' or 'owen'.")
    for name, value, least in (("branching", branching, 2), ("orders", orders, 4)):
        whole_number(name, value, least=least)
    if orders % 2:
        raise InputError(f"orders={orders} must be even, because each order is followed by its reverse.")


def _drill(root: Node, scorer: _Scorer, game: Game, budget: int) -> None:
    """Expand the root, then round after round the groups that score highest.

    Their order does not depend on the budget, so a larger budget evaluates the same coalitions and more.
    """
    asked: set[bytes] = set()

    def new(node: Node) -> set[bytes]:
        return {bytes(row) for row in scorer.questions(node).to(torch.uint8).tolist()} - asked

    first = new(root)
    if len(first) > budget:
        raise BudgetError(
            f"The {len(root.children)} parts of the prompt take {len(first)} evaluations, and the budget is {budget}. "
            "Raise it, lower `branching`, or use scores='ablation'."
        )
    chosen = [root]
    waiting: list[Node] = []
    while chosen:
        fitting: list[Node] = []
        for node in chosen:
            more = new(node)
            if len(asked) + len(more) > budget:
                break
            asked |= more
            fitting.append(node)
        if not fitting:
            return
        game.values(torch.cat([scorer.questions(node) for node in fitting]))
        for node in fitting:
            scorer.look_into(node)
            waiting += [child for child in node.children if child.children]
        if len(fitting) < len(chosen):
            return
        waiting = [node for node in waiting if node not in chosen]
        strength = {node: float(scorer.values[node][0].abs()) for node in waiting}
        waiting.sort(key=lambda node: -strength[node])
        chosen = [node for node in waiting if strength[node] >= CLOSE * strength[waiting[0]]]


def _estimate(root: Node, scorer: _Scorer, game: Game) -> Estimate:
    """Scores of features: their own, or an equal share of that of the smallest scored group around them."""
    values = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
    errors = torch.zeros_like(values)
    draws = len(next(iter(scorer.moves.values()), ()))
    moves = torch.zeros(draws, game.n_features, dtype=torch.float64)
    shared = 0
    nodes = [root, *_below(root, scorer.values)]
    for node in nodes[1:]:
        looked_into = any(child in scorer.values for child in node.children)
        if not looked_into:
            members = list(node.members)
            values[members] = scorer.values[node] / len(members)
            errors[members] = scorer.errors.get(node, errors[members]) / len(members)
            if node in scorer.moves:
                moves[:, members] = scorer.moves[node][:, None] / len(members)
            shared += len(members) if len(members) > 1 else 0
    notes = (f"{shared} features share the scores of groups that were not expanded",) if shared else ()
    return Estimate(
        values,
        errors if scorer.errors else None,
        estimand=scorer.estimand,
        extras={"tree": [_row(node, nodes, scorer) for node in nodes[1:]]},
        notes=notes,
        replicates=replicates_of(values[:, 0], moves) if draws else None,
    )


def _below(node: Node, scored: Mapping[Node, object]) -> list[Node]:
    found: list[Node] = []
    for child in node.children:
        if child in scored:
            found += [child, *_below(child, scored)]
    return found


def _row(node: Node, nodes: list[Node], scorer: _Scorer) -> dict[str, object]:
    """A group as plain values; ``parent`` is the index of another row, or ``None`` for the parts of the prompt."""
    return {
        "text": node.text,
        "level": node.level,
        "depth": node.depth,
        "parent": None if node.parent is nodes[0] or node.parent is None else nodes.index(node.parent) - 1,
        "members": list(node.members),
        "value": float(scorer.values[node][0]),
        "std_error": float(scorer.errors[node][0]) if node in scorer.errors else None,
        "token_values": scorer.values[node][1:].tolist(),
        "token_std_error": scorer.errors[node][1:].tolist() if node in scorer.errors else None,
    }

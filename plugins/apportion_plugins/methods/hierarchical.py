"""Drill-down: score the large parts of the prompt, then the parts of those that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, InputError, counted
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

    Each step expands the groups that score highest, of those whose expansion still fits the budget, until nothing more
    fits or every feature has its own score. Features of a group that was not expanded share its score equally; what
    each of them is worth was not measured, so its standard error is unknown (NaN). ``extras["tree"]`` lists all groups
    with their scores and the errors of these, for the view ``tree``.

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
    family, cost = "perturbation", "budget (default 256)"
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
        _require_first_step(root, scorer, game, budget)
        return _estimate(root, scorer, game, more=_drill(root, scorer, game, budget))


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


def _drill(root: Node, scorer: _Scorer, game: Game, budget: int) -> int:
    """Expand the root, then round after round the groups that score highest, of those that fit into the budget.

    As long as they fit, their order does not depend on the budget, so a larger one evaluates the same and more.

    Returns:
        Number of further coalitions that the cheapest expansion left would take; 0 if nothing is left.
    """
    asked: set[bytes] = set()
    needed = {root: _coalitions(scorer, root)}
    chosen: list[Node] = [root]
    waiting: list[Node] = []
    while chosen:
        for node in chosen:
            asked |= needed.pop(node)
        game.values(torch.cat([scorer.questions(node) for node in chosen]))
        for node in chosen:
            scorer.look_into(node)
            needed |= {child: _coalitions(scorer, child) for child in node.children if child.children}
        strength = {node: float(scorer.values[node][0].abs()) for node in needed}
        waiting = sorted(needed, key=lambda node: -strength[node])
        chosen = _fitting(waiting, strength, needed, asked, budget)
    return min((len(needed[node] - asked) for node in waiting), default=0)


def _coalitions(scorer: _Scorer, node: Node) -> set[bytes]:
    """The coalitions needed to score the children of a node."""
    return {row.tobytes() for row in np.packbits(scorer.questions(node).numpy(), axis=1)}


def _fitting(
    waiting: Sequence[Node],
    strength: Mapping[Node, float],
    needed: Mapping[Node, set[bytes]],
    asked: set[bytes],
    budget: int,
) -> list[Node]:
    """The strongest group that still fits the budget, and those that score nearly as much and fit as well."""
    chosen: list[Node] = []
    for node in waiting:
        if chosen and strength[node] < CLOSE * strength[chosen[0]]:
            break
        together = asked | needed[node]
        if len(together) <= budget:
            asked = together
            chosen.append(node)
    return chosen


def _require_first_step(root: Node, scorer: _Scorer, game: Game, budget: int) -> None:
    """Refuse a budget in which the whole prompt cannot be expanded, with advice that fits it."""
    n = game.n_features
    least = len(_coalitions(scorer, root))
    if least <= budget:
        return
    parts = len(root.children)
    advice = [f"Give budget={least} or more"]
    halves = 3 if isinstance(scorer, _Ablation) else 4
    if parts > 2 and halves <= budget:
        advice.append(f"branching=2, whose first step takes {halves}")
    if not isinstance(scorer, _Ablation) and parts + 1 <= budget:
        advice.append(f"scores='ablation', whose first step takes {parts + 1}")
    raise BudgetError(
        f"The first step, into {counted(parts, 'part')} of {counted(n, 'feature')}, takes "
        f"{counted(least, 'evaluation')}, and the budget is {budget}. {', or '.join(advice)}."
    )


def _estimate(root: Node, scorer: _Scorer, game: Game, more: int) -> Estimate:
    """Scores of features: their own, or an equal share of that of the smallest scored group around them."""
    values = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
    errors = torch.zeros_like(values)
    draws = len(next(iter(scorer.moves.values()), ()))
    moves = torch.zeros(draws, game.n_features, dtype=torch.float64)
    shared = 0
    nodes = [root, *_below(root, scorer.values)]
    for node in nodes[1:]:
        if any(child in scorer.values for child in node.children):
            continue
        members = list(node.members)
        sharing = game.possible[members]  # a token of the target takes no share of what comes before it
        values[members] = sharing * (scorer.values[node] / sharing.sum(0).clamp_min(1))
        if len(members) > 1:
            # The error of the group's score says nothing about how it divides among the features.
            errors[members] = torch.nan
            shared += len(members)
        elif node in scorer.errors:
            errors[members] = scorer.errors[node]
            moves[:, members] = scorer.moves[node][:, None]
    return Estimate(
        values,
        errors if scorer.errors or shared else None,
        estimand=scorer.estimand,
        extras={"tree": [_row(node, nodes, scorer) for node in nodes[1:]]},
        notes=(_shared_note(shared, more),) if shared else (),
        replicates=replicates_of(values[:, 0], moves) if draws and not shared else None,
    )


def _shared_note(shared: int, more: int) -> str:
    return (
        f"{shared} features share the scores of groups that were not expanded, so their own values are unknown; "
        f"expanding one of these groups takes at least {counted(more, 'further coalition')}"
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

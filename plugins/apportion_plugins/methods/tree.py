"""Nested groups of features: paragraphs, their sentences, their words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.protocols.features import Level

__all__ = ["Node", "build_tree", "exact_coalitions"]


@dataclass(eq=False)
class Node:
    """A group of features, or a single feature.

    Attributes:
        members: its features, in prompt order.
        text: name of the group.
        level: name of the level it belongs to; ``""`` for single features and intermediate groups.
        depth: depth in the tree; 0 for the whole prompt.
        parent: the group that contains it.
        children: the groups it consists of; none for a single feature.
    """

    members: tuple[int, ...]
    text: str
    level: str = ""
    depth: int = 0
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)

    def mask(self, n_features: int) -> Bool[Tensor, " F"]:
        """Coalition of its members."""
        found = torch.zeros(n_features, dtype=torch.bool)
        found[list(self.members)] = True
        return found


def build_tree(names: Sequence[str], levels: Sequence[Level], branching: int) -> Node:
    """The tree of all features, from their levels and intermediate groups.

    If a group has more parts than ``branching``, adjacent parts are merged into intermediate groups of about the same
    size, which bounds the cost of expanding it. A group with a single part takes its place.

    Args:
        names: names of the features.
        levels: the coarser levels, coarsest first, each nested in the one before.
        branching: maximum number of parts per group.
    """
    root = Node(tuple(range(len(names))), "everything")
    _grow(root, names, levels, branching)
    return root


def exact_coalitions(node: Node, contexts: int = 1) -> int:
    """Upper bound on the coalitions needed for exact Owen values of a whole tree."""
    count = len(node.children)
    inner = sum(exact_coalitions(child, contexts * 2 ** (count - 1)) for child in node.children if child.children)
    found: int = contexts * 2**count + inner
    return found


def _grow(node: Node, names: Sequence[str], levels: Sequence[Level], branching: int) -> None:
    if len(node.members) == 1:
        return
    if levels:
        parts = _cut(node.members, levels[0])
        if len(parts) == 1:
            _grow(node, names, levels[1:], branching)
            return
        made = [(part, levels[0].texts[levels[0].groups[part[0]]], levels[0].name) for part in parts]
    else:
        made = [((i,), names[i], "") for i in node.members]
    _attach(node, made, names, levels[1:], branching)


def _attach(
    node: Node,
    parts: Sequence[tuple[tuple[int, ...], str, str]],
    names: Sequence[str],
    below: Sequence[Level],
    branching: int,
) -> None:
    """Attach parts to a node, through intermediate groups if there are too many."""
    groups = len(parts) if len(parts) <= branching else min(branching, -(-len(parts) // branching))
    for g in range(groups):
        some = parts[g * len(parts) // groups : (g + 1) * len(parts) // groups]
        if len(some) == 1:
            ((members, text, level),) = some
            child = Node(members, names[members[0]] if len(members) == 1 else text, level, node.depth + 1, node)
            node.children.append(child)
            _grow(child, names, below, branching)
            continue
        members = tuple(i for part, _, _ in some for i in part)
        child = Node(members, f"{some[0][1]} … {some[-1][1]}", "", node.depth + 1, node)
        node.children.append(child)
        _attach(child, some, names, below, branching)


def _cut(members: Sequence[int], level: Level) -> list[tuple[int, ...]]:
    groups: dict[int, list[int]] = {}
    for i in members:
        groups.setdefault(level.groups[i], []).append(i)
    return [tuple(part) for part in groups.values()]

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
    """A group of features, or a single one.

    Attributes:
        members: its features, in the order of the prompt.
        text: what to call it.
        level: the name of the cut that it comes from; ``""`` for single features and groups that were made here.
        depth: 0 for the whole prompt.
        parent: the group that it is part of.
        children: the groups that it is cut into; none for a single feature.
    """

    members: tuple[int, ...]
    text: str
    level: str = ""
    depth: int = 0
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)

    def mask(self, n_features: int) -> Bool[Tensor, " F"]:
        """Its members."""
        found = torch.zeros(n_features, dtype=torch.bool)
        found[list(self.members)] = True
        return found


def build_tree(names: Sequence[str], levels: Sequence[Level], branching: int) -> Node:
    """The tree over all features: their levels, and between them neighbours taken together.

    A group of more parts than ``branching`` gets groups of neighbouring parts in between, of about the same size, so
    that looking into it is never dear. A group with one part stands for it.

    Args:
        names: of the features.
        levels: coarser cuts, the coarsest first, each nested in the one before.
        branching: the most parts that a group has.
    """
    root = Node(tuple(range(len(names))), "everything")
    _grow(root, names, levels, branching)
    return root


def exact_coalitions(node: Node, contexts: int = 1) -> int:
    """Coalitions that exact Owen values of a whole tree ask for, at most."""
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
    """Make parts the children of a node, with groups of neighbours in between where they are too many."""
    if len(parts) <= branching:
        for members, text, level in parts:
            child = Node(members, names[members[0]] if len(members) == 1 else text, level, node.depth + 1, node)
            node.children.append(child)
            _grow(child, names, below, branching)
        return
    groups = min(branching, -(-len(parts) // branching))
    for g in range(groups):
        some = parts[g * len(parts) // groups : (g + 1) * len(parts) // groups]
        members = tuple(i for part, _, _ in some for i in part)
        child = Node(members, f"{some[0][1]} … {some[-1][1]}", "", node.depth + 1, node)
        node.children.append(child)
        _attach(child, some, names, below, branching)


def _cut(members: Sequence[int], level: Level) -> list[tuple[int, ...]]:
    groups: dict[int, list[int]] = {}
    for i in members:
        groups.setdefault(level.groups[i], []).append(i)
    return [tuple(part) for part in groups.values()]

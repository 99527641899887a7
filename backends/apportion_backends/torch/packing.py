"""Layout of a packed batch: rows in the order of their prefix tree, each distinct token once.

A row adds what is new of it, a segment, to one long row of nodes. Its path (all its tokens, from the first to the
last) runs through kept tokens, segments of rows before it, and its own. This module only computes indices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.protocols.row import ModelInput, Row
from apportion.scoring.prefix_tree import reused_tokens

__all__ = ["LEAST_TRUNK", "Group", "Pack", "lay_out"]

LEAST_TRUNK = 32
"""Tokens that rows share before their attention to them is worth computing apart."""
CAUSAL_BLOCK = 64
"""Causal attention on a CPU goes by blocks of as many queries, and computes all of a block that it needs a part of."""
GROUP_OVERHEAD = 128 * 1024
"""Cost of attention for one more group, in pairs of a query and a key."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows whose attention is computed together. Places count kept tokens first, then nodes.

    Attributes:
        nodes: the first node of their segments, and the one after the last.
        trunk: places of the tokens with which all their paths begin.
        paths: places of what follows on each path, padded on the right with any place.
        queries: nodes that attend to them. Without a mask those of the whole ``paths`` (any node where the place is
            that of a kept token), so that attention is causal; with a mask those of the segments alone, padded with
            any node.
        mask: summand of the scores: 0, or -inf where a place is not on the path to a node.
        where: place of each node of the segments in the flattened ``queries``.
    """

    nodes: tuple[int, int]
    trunk: Int[Tensor, " C"]
    paths: Int[Tensor, "B L"]
    queries: Int[Tensor, "B Q"]
    mask: Float[Tensor, "B 1 Q L"] | None
    where: Int[Tensor, " S"]

    def to(self, device: torch.device, dtype: torch.dtype) -> Group:
        """Move to a device, with the mask in the dtype of the scores."""
        trunk, paths, queries, where = (
            t.to(device, non_blocking=True) for t in (self.trunk, self.paths, self.queries, self.where)
        )
        mask = None if self.mask is None else self.mask.to(device, dtype, non_blocking=True)
        return Group(self.nodes, trunk, paths, queries, mask, where)


@dataclass(frozen=True, slots=True)
class Pack:
    """A batch as one row.

    Attributes:
        reused: number of kept tokens that are read.
        longest: tokens of the longest row.
        ids: token ids of the nodes; there may be unused ones at the end.
        positions: positions of the nodes in their rows.
        groups: groups for attention; their segments follow one another and cover all nodes.
        predicts: the node before each target token of each row, padded with any node.
        last: places of the last row's path.
    """

    reused: int
    longest: int
    ids: Int[Tensor, " S"]
    positions: Int[Tensor, " S"]
    groups: tuple[Group, ...]
    predicts: Int[Tensor, "B T"]
    last: Int[Tensor, " L"]

    def to(self, device: torch.device, dtype: torch.dtype) -> Pack:
        """Move to a device, for scores of a dtype."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True) for name in ("ids", "positions", "predicts", "last")
        }
        return replace(self, groups=tuple(group.to(device, dtype) for group in self.groups), **moved)


def lay_out(
    rows: Sequence[Row],
    kept: tuple[int, ...] = (),
    *,
    least_trunk: int | None = LEAST_TRUNK,
    masks: bool = True,
    size: Callable[[int], int] | None = None,
) -> Pack:
    """Lay rows out.

    Args:
        rows: rows in the order of their prefix tree; another order gives the same values, but reads more tokens.
        kept: tokens whose keys and values are known.
        least_trunk: tokens that rows share before attention to them is computed apart; ``None`` if it never is.
        masks: allow attention with a mask.
        size: maps the number of nodes that are needed to the number to lay out; the rest are unused.
    """
    depths = reused_tokens(rows, ModelInput(kept) if kept else None)
    reads = [row.read for row in rows]
    reused = depths[0]
    paths: list[np.ndarray] = []
    before = np.arange(reused)
    nodes = 0
    starts = []
    for read, depth in zip(reads, depths, strict=True):
        starts.append(nodes)
        new = len(read) - depth
        before = np.concatenate([before[:depth], np.arange(reused + nodes, reused + nodes + new)])
        paths.append(before)
        nodes += new
    starts.append(nodes)
    ids = [token for read, depth in zip(reads, depths, strict=True) for token in read[depth:]]
    positions = [np.arange(depth, len(read)) for read, depth in zip(reads, depths, strict=True)]
    groups = [
        _group(paths[i:j], depths[i:j], starts[i : j + 1], trunk, reused, masks)
        for i, j, trunk in _groups(depths, [len(read) for read in reads], starts, least_trunk, masks)
    ]
    beyond = 0 if size is None else size(nodes) - nodes
    if beyond:
        groups[-1] = _with_any(groups[-1], beyond)
    return Pack(
        reused=reused,
        longest=max(map(len, reads)),
        ids=torch.tensor(ids + ids[-1:] * beyond),
        positions=torch.from_numpy(np.concatenate([*positions, np.zeros(beyond, dtype=np.int64)])),
        groups=tuple(groups),
        predicts=torch.from_numpy(_predicting(rows, paths)) - reused,
        last=torch.from_numpy(paths[-1]),
    )


def _predicting(rows: Sequence[Row], paths: Sequence[np.ndarray]) -> np.ndarray:
    widest = max(len(row.target) for row in rows)
    found = np.empty((len(rows), widest), dtype=np.int64)
    for i, (row, path) in enumerate(zip(rows, paths, strict=True)):
        places = path[len(row.prompt) - 1 :]
        found[i, : len(places)] = places
        found[i, len(places) :] = places[-1]
    return found


def _groups(
    depths: Sequence[int], lengths: Sequence[int], starts: Sequence[int], least_trunk: int | None, masks: bool
) -> list[tuple[int, int, int]]:
    """Stretches of rows ``(first, after the last, trunk)``: the cut by which attention costs least.

    A row's new nodes must lie behind the trunk of its group, because its queries do. Rows that add nothing, as all
    their tokens are those of rows before, belong to any stretch.
    """
    least = np.inf if least_trunk is None else least_trunk
    adding = np.flatnonzero(np.diff(starts))
    depth, length, new = (np.asarray(a)[adding] for a in (depths, lengths, np.diff(starts)))
    before = np.concatenate([[0], np.cumsum(new)])
    costs = np.zeros(len(adding) + 1)
    firsts = np.zeros(len(adding) + 1, dtype=np.int64)
    # Of the stretches that end with the row at hand, by where they begin.
    shallowest, longest, most = (np.empty(0, dtype=np.int64) for _ in range(3))
    for last in range(len(adding)):
        shallowest = np.append(np.minimum(shallowest, depth[last]), depth[last])
        longest = np.append(np.maximum(longest, length[last]), length[last])
        most = np.append(np.maximum(most, new[last]), new[last])
        trunk = shallowest * (shallowest >= least)
        near = _causal(longest - trunk)
        if masks:
            near = np.minimum(near, most * (longest - trunk))
        rows = last + 1 - np.arange(last + 1)
        found = costs[: last + 1] + rows * near + (before[last + 1] - before[: last + 1]) * trunk + GROUP_OVERHEAD
        firsts[last + 1] = found.argmin()
        costs[last + 1] = found.min()
    cuts = [len(adding)]
    while cuts[-1]:
        cuts.append(int(firsts[cuts[-1]]))
    stretches = []
    for first, after in pairwise(cuts[::-1]):
        shared = depth[first:after].min()
        stretches.append((int(adding[first]), int(adding[after - 1]) + 1, int(shared * (shared >= least))))
    return stretches


@overload
def _causal(length: int) -> int: ...
@overload
def _causal(length: np.ndarray) -> np.ndarray: ...
def _causal(length: int | np.ndarray) -> int | np.ndarray:
    """Queries times keys that causal attention computes: half of a square, and half of the blocks on its diagonal."""
    return length * (length + CAUSAL_BLOCK) // 2


def _group(
    paths: Sequence[np.ndarray], depths: Sequence[int], starts: Sequence[int], trunk: int, reused: int, masks: bool
) -> Group:
    # Rows that add nothing have no queries.
    adding = [(path[trunk:], len(path) - depth) for path, depth in zip(paths, depths, strict=True) if len(path) > depth]
    longest = max(len(path) for path, _ in adding)
    most = max(new for _, new in adding)
    masked = masks and most * longest < _causal(longest)
    width = most if masked else longest
    places = np.full((len(adding), longest), reused, dtype=np.int64)
    queries = np.full((len(adding), width), reused, dtype=np.int64)
    where = []
    for i, (path, new) in enumerate(adding):
        places[i, : len(path)] = path
        asking = path[-new:] if masked else path
        queries[i, : len(asking)] = asking
        where.append(np.arange(i * width + len(asking) - new, i * width + len(asking)))
    return Group(
        nodes=(starts[0], starts[-1]),
        trunk=torch.from_numpy(paths[0][:trunk].copy()),
        paths=torch.from_numpy(places),
        queries=torch.from_numpy(np.maximum(queries - reused, 0)),
        mask=_mask(adding, width, longest) if masked else None,
        where=torch.from_numpy(np.concatenate(where)),
    )


def _with_any(group: Group, count: int) -> Group:
    """More nodes, whose attention is that of the first one of the group: nobody reads it."""
    first, after = group.nodes
    return replace(group, nodes=(first, after + count), where=torch.cat([group.where, group.where[:1].expand(count)]))


def _mask(adding: Sequence[tuple[np.ndarray, int]], width: int, longest: int) -> Float[Tensor, "B 1 Q L"]:
    """A path's last nodes see what is before them on it; queries that are padding see more, so that they are finite."""
    depths = torch.tensor([len(path) - new for path, new in adding])
    last_seen = depths[:, None] + torch.arange(width)
    hidden = torch.arange(longest) > last_seen[:, :, None]
    return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[:, None]

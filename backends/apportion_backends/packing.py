"""Layout of a packed batch: rows in the order of their prefix tree, each distinct token once.

A row adds what is new of it, a segment, to one long row of nodes. Its path (all its tokens, from the first to the
last) runs through kept tokens, segments of rows before it, and its own. This module only computes indices, with NumPy,
so that backends of any kind can use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import overload

import numpy as np
from jaxtyping import Bool, Int

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
        seen: number of places, from the first of each path, that a query attends to; at least 1. ``None`` without a
            mask.
        where: place of each node of the segments in the flattened ``queries``.
    """

    nodes: tuple[int, int]
    trunk: Int[np.ndarray, " C"]
    paths: Int[np.ndarray, "B L"]
    queries: Int[np.ndarray, "B Q"]
    seen: Int[np.ndarray, "B Q"] | None
    where: Int[np.ndarray, " S"]

    @property
    def hidden(self) -> Bool[np.ndarray, "B Q L"] | None:
        """True where a place is not on the path to a query; ``None`` if attention is causal."""
        return None if self.seen is None else np.arange(self.paths.shape[1]) >= self.seen[:, :, None]


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
    ids: Int[np.ndarray, " S"]
    positions: Int[np.ndarray, " S"]
    groups: tuple[Group, ...]
    predicts: Int[np.ndarray, "B T"]
    last: Int[np.ndarray, " L"]


def lay_out(
    rows: Sequence[Row],
    kept: tuple[int, ...] = (),
    *,
    least_trunk: int | None = LEAST_TRUNK,
    masks: bool = True,
    size: Callable[[int], int] | None = None,
    piece: int | None = None,
    share: bool = True,
) -> Pack:
    """Lay rows out.

    Args:
        rows: rows in the order of their prefix tree; another order gives the same values, but reads more tokens.
        kept: tokens whose keys and values are known.
        least_trunk: tokens that rows share before attention to them is computed apart; ``None`` if it never is.
        masks: allow attention with a mask.
        size: maps the number of nodes that are needed to the number to lay out; the rest are unused.
        piece: make a single group with a mask, whose segments are cut into pieces of at most so many queries, so that
            a long segment does not widen all others.
        share: read what rows share once. Otherwise each row is read whole, after ``kept``, which all begin with.
    """
    before = ModelInput(kept) if kept else None
    depths = reused_tokens(rows, before) if share else [len(kept)] * len(rows)
    reads = [row.read for row in rows]
    reused = depths[0]
    paths: list[np.ndarray] = []
    path = np.arange(reused)
    nodes = 0
    starts = []
    for read, depth in zip(reads, depths, strict=True):
        starts.append(nodes)
        new = len(read) - depth
        path = np.concatenate([path[:depth], np.arange(reused + nodes, reused + nodes + new)])
        paths.append(path)
        nodes += new
    starts.append(nodes)
    ids = [token for read, depth in zip(reads, depths, strict=True) for token in read[depth:]]
    positions = [np.arange(depth, len(read)) for read, depth in zip(reads, depths, strict=True)]
    if piece is None:
        cuts = _groups(depths, [len(read) for read in reads], starts, least_trunk, masks)
    else:
        cuts = [(0, len(rows), _shared(depths, starts, least_trunk))]
    groups = [_group(paths[i:j], depths[i:j], starts[i : j + 1], trunk, reused, masks, piece) for i, j, trunk in cuts]
    beyond = 0 if size is None else size(nodes) - nodes
    if beyond:
        groups[-1] = _with_any(groups[-1], beyond)
    return Pack(
        reused=reused,
        longest=max(map(len, reads)),
        ids=np.array(ids + ids[-1:] * beyond),
        positions=np.concatenate([*positions, np.zeros(beyond, dtype=np.int64)]),
        groups=tuple(groups),
        predicts=_predicting(rows, paths) - reused,
        last=paths[-1],
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


def _shared(depths: Sequence[int], starts: Sequence[int], least_trunk: int | None) -> int:
    """Tokens that all rows which add any share, if they are enough to be a trunk."""
    adding = np.flatnonzero(np.diff(starts))
    shared = min(depths[i] for i in adding.tolist())
    return 0 if least_trunk is None or shared < least_trunk else shared


def _group(
    paths: Sequence[np.ndarray],
    depths: Sequence[int],
    starts: Sequence[int],
    trunk: int,
    reused: int,
    masks: bool,
    piece: int | None,
) -> Group:
    # Rows that add nothing have no queries.
    adding = [(path[trunk:], len(path) - depth) for path, depth in zip(paths, depths, strict=True) if len(path) > depth]
    if piece is not None:
        adding = [part for path, new in adding for part in _pieces(path, new, piece)]
    longest = max(len(path) for path, _ in adding)
    most = max(new for _, new in adding)
    masked = piece is not None or (masks and most * longest < _causal(longest))
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
        trunk=paths[0][:trunk],
        paths=places,
        queries=np.maximum(queries - reused, 0),
        seen=_seen(adding, width) if masked else None,
        where=np.concatenate(where),
    )


def _pieces(path: np.ndarray, new: int, most: int) -> Iterator[tuple[np.ndarray, int]]:
    """Pieces of a segment, each with the path to its last node."""
    for start in range(len(path) - new, len(path), most):
        end = min(start + most, len(path))
        yield path[:end], end - start


def _with_any(group: Group, count: int) -> Group:
    """More nodes, whose attention is that of the first one of the group: nobody reads it."""
    first, after = group.nodes
    return replace(group, nodes=(first, after + count), where=np.append(group.where, np.repeat(group.where[:1], count)))


def _seen(adding: Sequence[tuple[np.ndarray, int]], width: int) -> Int[np.ndarray, "B Q"]:
    """A path's last nodes see what is before them on it; queries that are padding see more, so that they are finite."""
    depths = np.array([len(path) - new for path, new in adding])
    return depths[:, None] + 1 + np.arange(width)

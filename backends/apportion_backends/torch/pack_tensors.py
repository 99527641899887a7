"""A packed batch on the device of a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion_backends.packing import Group, Pack

__all__ = ["GroupTensors", "PackTensors"]


@dataclass(frozen=True, slots=True)
class GroupTensors:
    """The indices of a ``Group``.

    Attributes:
        nodes: the first node of its segments, and the one after the last.
        trunk: places of the tokens with which all paths begin.
        paths: places of what follows on each path.
        queries: nodes that attend to them.
        mask: summand of the scores: 0, or -inf where a place is not on the path to a node; ``None`` if attention is
            causal.
        where: place of each node in the flattened ``queries``.
    """

    nodes: tuple[int, int]
    trunk: Int[Tensor, " C"]
    paths: Int[Tensor, "B L"]
    queries: Int[Tensor, "B Q"]
    mask: Float[Tensor, "B 1 Q L"] | None
    where: Int[Tensor, " S"]

    @classmethod
    def of(cls, group: Group, device: torch.device, dtype: torch.dtype) -> GroupTensors:
        """Move a group to a device, with the mask in the dtype of the scores."""
        places = (_moved(a, device) for a in (group.trunk, group.paths, group.queries, group.where))
        trunk, paths, queries, where = places
        return cls(group.nodes, trunk, paths, queries, _mask(group, device, dtype), where)


@dataclass(frozen=True, slots=True)
class PackTensors:
    """The indices of a ``Pack``; see there.

    Attributes:
        reused: number of kept tokens that are read.
        longest: tokens of the longest row.
        ids: token ids of the nodes.
        positions: positions of the nodes in their rows.
        groups: groups for attention.
        predicts: the node before each target token of each row.
        last: places of the last row's path.
    """

    reused: int
    longest: int
    ids: Int[Tensor, " S"]
    positions: Int[Tensor, " S"]
    groups: tuple[GroupTensors, ...]
    predicts: Int[Tensor, "B T"]
    last: Int[Tensor, " L"]

    @classmethod
    def of(cls, pack: Pack, device: torch.device, dtype: torch.dtype) -> PackTensors:
        """Move a packed batch to a device, for scores of a dtype."""
        ids, positions, predicts, last = (
            _moved(a, device) for a in (pack.ids, pack.positions, pack.predicts, pack.last)
        )
        groups = tuple(GroupTensors.of(group, device, dtype) for group in pack.groups)
        return cls(pack.reused, pack.longest, ids, positions, groups, predicts, last)


def _moved(places: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(places).to(device, non_blocking=True)


def _mask(group: Group, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "B 1 Q L"] | None:
    hidden = group.hidden
    if hidden is None:
        return None
    mask = torch.zeros(hidden.shape).masked_fill_(torch.from_numpy(hidden), -torch.inf)[:, None]
    return mask.to(device, dtype, non_blocking=True)

"""The module that is traced: a decoder that reads a prefix tree as one row of nodes, written for export.

Attention is plain products, because a graph has no variable number of groups: every node attends to the trunk, whose
keys are not copied, and to its own path, whose keys are gathered. Place 0 holds no token, so that no input needs to be
empty: several execution providers, and ONNX Runtime up to 1.24, fail on products of empty matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

__all__ = ["INPUTS", "OUTPUTS", "PackedDecoder", "example_inputs", "packed_attention_of"]

IMPLEMENTATION = "apportion_packed"
"""Name of this attention among those of ``transformers``."""
HIDDEN = -1e30
"""Summand of the score of a key that is not seen. Finite, so that queries that are padding give numbers, too."""
INPUTS = (
    "ids", "positions", "paths", "queries", "seen", "where", "trunk", "keys", "values", "last", "predicts", "reads",
)  # fmt: skip
OUTPUTS = ("predicting", "states", "new_keys", "new_values")


@dataclass(slots=True)
class Nodes:
    """Shared state of the attention of all layers in one forward pass; names are those of ``packing.Group``.

    Attributes:
        paths: places of each row's path, ``Int[B, L]``.
        queries: nodes that attend to it, ``Int[B, Q]``.
        seen: number of places that a query sees, ``Int[B, Q]``.
        where: place of each node in the flattened queries, ``Int[S]``.
        trunk: places of the tokens with which all paths begin, ``Int[C]``; place 0 is hidden.
        keys: kept keys of all layers, ``Float[N, G, P, D]``; those of place 0 are any.
        values: kept values of all layers.
        last: places of the last row's path.
        positions: positions of the nodes, ``Int[S]``.
        found: keys and values of the last row's path, by layer.
        masks: summands of the scores, by window.
    """

    paths: Tensor
    queries: Tensor
    seen: Tensor
    where: Tensor
    trunk: Tensor
    keys: Tensor
    values: Tensor
    last: Tensor
    positions: Tensor
    found: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    masks: dict[int | None, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def mask(self, window: int | None) -> tuple[Tensor, Tensor]:
        """Summands of the scores of the trunk (``[C]`` or ``[B, Q, C]``) and of the paths ``[B, Q, L]``.

        Args:
            window: number of tokens that a query sees, itself included.
        """
        if window not in self.masks:
            places, missing = torch.arange(self.paths.shape[1]), self.trunk == 0
            hidden = places >= self.seen[:, :, None]
            if window is not None:
                # Paths begin behind the trunk, and the trunk with the first token.
                first = (self.positions[self.queries] - window + 1)[:, :, None]
                hidden = hidden | ((~missing).sum() + places < first)
                missing = missing | (torch.arange(self.trunk.shape[0]) < first)
            self.masks[window] = torch.where(missing, HIDDEN, 0.0), torch.where(hidden, HIDDEN, 0.0)
        return self.masks[window]


_NODES: ContextVar[Nodes] = ContextVar("nodes")


def _attend(
    module: Any,
    query: Float[Tensor, "1 H S D"],
    key: Float[Tensor, "1 G S D"],
    value: Float[Tensor, "1 G S E"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Float[Tensor, "1 S H E"], None]:
    """Attention of every node to its path, in the form that ``AttentionInterface`` wants.

    Raises:
        ValueError: the attention has sinks.
    """
    if s_aux is not None:
        raise ValueError("its attention has sinks, which the exported graph does not have")
    nodes, layer = _NODES.get(), int(module.layer_idx)
    keys, values = torch.cat([nodes.keys[layer], key[0]], 1), torch.cat([nodes.values[layer], value[0]], 1)
    nodes.found[layer] = keys.index_select(1, nodes.last), values.index_select(1, nodes.last)
    groups, size, width = keys.shape[0], keys.shape[2], values.shape[2]
    shared = query.shape[1] // groups
    rows, columns = nodes.queries.shape
    # Groups of heads come first everywhere, so that keys and values are gathered, and never transposed.
    asking = query[0].index_select(1, nodes.queries.reshape(-1)) * (size**-0.5 if scaling is None else scaling)
    asking = asking.reshape(groups, shared, rows, columns, size).transpose(1, 2)
    path, length = nodes.paths.reshape(-1), nodes.paths.shape[1]
    near_keys = keys.index_select(1, path).reshape(groups, rows, length, size)
    near = asking.reshape(groups, rows, shared * columns, size) @ near_keys.transpose(2, 3)
    far = asking.reshape(groups, rows * shared * columns, size) @ keys.index_select(1, nodes.trunk).transpose(1, 2)
    near = near.reshape(groups, rows, shared, columns, length)
    far = far.reshape(groups, rows, shared, columns, nodes.trunk.shape[0])
    if softcap is not None:
        near, far = (softcap * torch.tanh(part / softcap) for part in (near, far))
    far_mask, near_mask = nodes.mask(sliding_window)
    near = near + near_mask[:, None]
    far = far + (far_mask if far_mask.ndim == 1 else far_mask[:, None])
    weights = torch.softmax(torch.cat([far, near], -1), -1)
    trunk = nodes.trunk.shape[0]
    to_trunk = weights[..., :trunk].reshape(groups, rows * shared * columns, trunk)
    to_path = weights[..., trunk:].reshape(groups, rows, shared * columns, length)
    found = to_path @ values.index_select(1, path).reshape(groups, rows, length, width)
    found = found.reshape(groups, rows, shared, columns, width)
    far_found = to_trunk @ values.index_select(1, nodes.trunk)
    found = found + far_found.reshape(groups, rows, shared, columns, width)
    found = found.permute(1, 3, 0, 2, 4).reshape(rows * columns, groups * shared, width)
    return found.index_select(0, nodes.where)[None], None


@contextmanager
def packed_attention_of(model: PreTrainedModel) -> Iterator[None]:
    """Context in which a model attends along the paths of a packed batch."""
    AttentionInterface.register(IMPLEMENTATION, _attend)
    before = model.config._attn_implementation
    model.set_attn_implementation(IMPLEMENTATION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class PackedDecoder(nn.Module):
    """A decoder without its head, from the indices of a packed batch to last hidden states.

    Args:
        model: model in ``packed_attention_of``.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.base_model

    def forward(
        self,
        ids: Int[Tensor, " S"],
        positions: Int[Tensor, " S"],
        paths: Int[Tensor, "B L"],
        queries: Int[Tensor, "B Q"],
        seen: Int[Tensor, "B Q"],
        where: Int[Tensor, " S"],
        trunk: Int[Tensor, " C"],
        keys: Float[Tensor, "N G P D"],
        values: Float[Tensor, "N G P E"],
        last: Int[Tensor, " M"],
        predicts: Int[Tensor, " R"],
        reads: Int[Tensor, " O"],
    ) -> tuple[Float[Tensor, "R W"], Float[Tensor, "O W"], Tensor, Tensor]:
        """Hidden states at the nodes ``predicts`` and ``reads``, and keys and values of the last row's path."""
        nodes = Nodes(paths, queries, seen, where, trunk, keys, values, last, positions)
        token = _NODES.set(nodes)
        try:
            states = self.model(ids[None], position_ids=positions[None], use_cache=False, return_dict=True)[0][0]
        finally:
            _NODES.reset(token)
        layers = [nodes.found[layer] for layer in sorted(nodes.found)]
        new_keys, new_values = (torch.stack(parts) for parts in zip(*layers, strict=True))
        return states[predicts], states[reads], new_keys, new_values


def example_inputs(
    layers: int, key: tuple[int, int], value: tuple[int, int], vocabulary: int, device: torch.device
) -> dict[str, Tensor]:
    """Inputs to trace with: every size is another one, and none is 0 or 1, so that none is taken for a constant.

    Args:
        layers: number of layers.
        key: number of key heads, and their size.
        value: the same of values.
        vocabulary: number of token ids.
        device: device of the model.
    """
    kept, nodes, rows, width, longest, trunk, path, targets, read = 5, 11, 3, 4, 7, 6, 8, 9, 10
    draw = torch.Generator().manual_seed(0)

    def indices(below: int, *shape: int) -> Tensor:
        return torch.randint(0, below, shape, generator=draw).to(device)

    return {
        "ids": indices(vocabulary, nodes),
        "positions": torch.arange(nodes, device=device),
        "paths": indices(kept + nodes, rows, longest),
        "queries": indices(nodes, rows, width),
        "seen": 1 + indices(longest, rows, width),
        "where": indices(rows * width, nodes),
        "trunk": indices(kept + nodes, trunk),
        "keys": torch.zeros(layers, key[0], kept, key[1], device=device),
        "values": torch.zeros(layers, value[0], kept, value[1], device=device),
        "last": indices(nodes, path),
        "predicts": indices(nodes, targets),
        "reads": indices(nodes, read),
    }

"""A prefix that is encoded once and read by every row, without copies and at any batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

__all__ = ["encode_prefix"]


class PrefixLayer(DynamicLayer):
    """Keys and values of batch 1 that every row sees before its own; reading changes nothing."""

    def update(
        self,
        key_states: Float[Tensor, "B H S D"],
        value_states: Float[Tensor, "B H S D"],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L D"]]:
        """The prefix, expanded without a copy, followed by the rows' own keys and values."""
        assert self.keys is not None and self.values is not None
        rows = key_states.shape[0]
        keys = torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2)
        return keys, values


def encode_prefix(model: PreTrainedModel, ids: Int[Tensor, " P"], start: Cache | None = None) -> Cache | None:
    """A read-only cache of a prefix; ``None`` if the model keeps another kind of state.

    Sliding windows, recurrent states and the like have cache layers of their own, which cannot be shared
    this way.

    Args:
        model: fills the cache; its head is not needed.
        ids: the prefix, or what extends ``start``.
        start: a cache from here, which is not changed.
    """
    cache = DynamicCache(config=model.config)
    known = 0
    if start is not None:
        known = start.get_seq_length()
        # Growing a DynamicLayer concatenates into new tensors, so the keys of ``start`` can be lent.
        cache = DynamicCache([(layer.keys, layer.values) for layer in _plain_layers(start.layers) or ()])
    model.base_model(ids[None].to(model.device), past_key_values=cache, use_cache=True)
    filled = _plain_layers(cache.layers)
    if filled is None or any(layer.keys.shape[-2] != known + len(ids) for layer in filled):
        return None
    layers: list[Any] = []
    for layer in filled:
        lent = PrefixLayer()
        lent.lazy_initialization(layer.keys, layer.values)
        lent.keys, lent.values = layer.keys, layer.values
        layers.append(lent)
    return Cache(layers=layers)


def _plain_layers(layers: Sequence[Any]) -> list[Any] | None:
    """The layers, if each one simply keeps all its keys and values."""
    plain = [layer for layer in layers if type(layer) in (DynamicLayer, PrefixLayer) and layer.keys is not None]
    return plain if plain and len(plain) == len(layers) else None

"""A prefix that is encoded once and read by every row, without copies and at any batch size."""

from __future__ import annotations

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


def encode_prefix(model: PreTrainedModel, ids: Int[Tensor, " P"]) -> Cache | None:
    """A read-only cache of a prefix; ``None`` if the model keeps another kind of state.

    Sliding windows, recurrent states and the like have cache layers of their own, which cannot be shared
    this way.
    """
    cache = DynamicCache(config=model.config)
    # The head is not needed: the base model fills the cache.
    model.base_model(ids[None].to(model.device), past_key_values=cache, use_cache=True)
    layers: list[Any] = []
    for filled in cache.layers:
        if type(filled) is not DynamicLayer or filled.keys is None or filled.values is None:
            return None
        if filled.keys.shape[-2] != len(ids):
            return None
        layer = PrefixLayer()
        layer.lazy_initialization(filled.keys, filled.values)
        layer.keys, layer.values = filled.keys, filled.values
        layers.append(layer)
    return Cache(layers=layers) if layers else None

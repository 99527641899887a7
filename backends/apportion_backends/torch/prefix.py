"""A prefix that is encoded once and read by every row, without copies and at any batch size."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from apportion.scoring.prefix_tree import common_prefix
from apportion_backends.torch.inputs import cache_argument, input_device

__all__ = ["PrefixStore", "empty_cache", "encode_prefix", "part_of", "read_only"]


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


class PrefixStore:
    """The longest prefix encoded so far; others are read from it or extend it.

    Args:
        model: whose keys and values are kept. They are valid as long as its weights are.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        # One attribute, because several threads may read with one model.
        self._encoded: tuple[tuple[int, ...], Cache | None] = ((), None)

    @property
    def kept(self) -> tuple[int, ...]:
        """The prefix that is encoded."""
        ids, cache = self._encoded
        return ids if cache is not None else ()

    def get(self, ids: tuple[int, ...]) -> Cache | None:
        """A read-only cache of a prefix; ``None`` if the model keeps another kind of state."""
        encoded, cache = self._encoded
        known = common_prefix(encoded, ids)
        if cache is None or known < len(ids):
            start = None if cache is None or known == 0 else part_of(cache, known)
            encoded, cache = ids, encode_prefix(self._model, torch.tensor(ids[known if start else 0 :]), start)
            self._encoded = encoded, cache
        return cache if cache is None or len(encoded) == len(ids) else part_of(cache, len(ids))


def encode_prefix(model: PreTrainedModel, ids: Int[Tensor, " P"], start: Cache | None = None) -> Cache | None:
    """A read-only cache of a prefix; ``None`` if the model keeps another kind of state.

    Sliding windows, recurrent states and the like have cache layers of their own, which cannot be shared
    this way.

    Args:
        model: fills the cache; its head is not needed.
        ids: the prefix, or what extends ``start``.
        start: a cache from here, which is not changed.
    """
    cache = empty_cache(model, start)
    known = 0 if start is None else start.get_seq_length()
    kept: dict[str, Any] = {cache_argument(model.base_model): cache}
    model.base_model(ids[None].to(input_device(model)), use_cache=True, return_dict=True, **kept)
    return read_only(cache, known + len(ids))


def empty_cache(model: PreTrainedModel, start: Cache | None = None) -> DynamicCache:
    """A cache to fill: empty, or one that continues from another, which is not changed."""
    config = model.config.get_text_config()
    if start is None:
        return DynamicCache(config=config)
    # Growing a DynamicLayer concatenates into new tensors, so the keys of ``start`` can be lent.
    lent = [(layer.keys, layer.values) for layer in start.layers if isinstance(layer, PrefixLayer)]
    return DynamicCache(lent, config=config)


def read_only(cache: Cache, length: int) -> Cache | None:
    """A filled cache as one that every row reads; ``None`` if the model keeps another kind of state.

    Args:
        cache: the filled cache.
        length: number of tokens in it.
    """
    layers: list[Any] = []
    for layer in cache.layers:
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            return None
        if layer.keys.shape[-2] != length:
            return None
        layers.append(_layer(layer.keys, layer.values))
    return Cache(layers=layers) if layers else None


def _layer(keys: Tensor, values: Tensor) -> PrefixLayer:
    layer = PrefixLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


def part_of(cache: Cache, length: int) -> Cache:
    """The first tokens of a cache, without a copy."""
    layers: list[Any] = []
    for layer in cache.layers:
        assert isinstance(layer, PrefixLayer) and layer.keys is not None and layer.values is not None
        layers.append(_layer(layer.keys[..., :length, :], layer.values[..., :length, :]))
    return Cache(layers=layers)

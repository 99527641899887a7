"""A model whose attention reads a shared prefix from one copy of its keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AttentionInterface, Cache, PreTrainedModel

from apportion_backends.torch.packed import longest_packed_row
from apportion_backends.torch.packed_attention import check_plain
from apportion_backends.torch.prefix import PrefixLayer
from apportion_backends.torch.twin import Twin
from apportion_backends.triton.shared_prefix_attention import MOST_CHANNELS, shared_prefix_attention

__all__ = ["SharedPrefixModel"]

NAME = "apportion_shared_prefix"


@dataclass(frozen=True, slots=True)
class _SharedPrefix:
    """Keys and values of the prefix, by layer."""

    layers: tuple[tuple[Float[Tensor, "G P D"], Float[Tensor, "G P D"]], ...]


def attention(
    module: torch.nn.Module,
    query: Float[Tensor, "B H S D"],
    key: Float[Tensor, "B G S D"],
    value: Float[Tensor, "B G S D"],
    attention_mask: Tensor | None,
    *,
    shared_prefix: _SharedPrefix,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "B S H D"], None]:
    """What transformers calls in every layer.

    Raises:
        ValueError: the model wants a mask, or more than a soft-max of products; only its own attention applies them.
    """
    check_plain(kwargs)
    if attention_mask is not None:
        raise ValueError("Rows behind a shared prefix have no mask.")
    layer: int = module.layer_idx  # type: ignore[assignment]
    found = shared_prefix_attention(query, key, value, *shared_prefix.layers[layer], scaling=scaling)
    return found.transpose(1, 2), None


class SharedPrefixModel:
    """Reads rows behind a prefix that was encoded.

    Args:
        model: what reads. A twin of it does, whose attention is the kernel; the registration is transformers' own.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        AttentionInterface.register(NAME, attention)
        self._model = model
        self._window = longest_packed_row(model)
        config = model.config.get_text_config()
        self._channels = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._twin = Twin(model, NAME)

    def fits(self, tokens: int) -> bool:
        """Whether rows so long, prefix included, may be read: no layer's window hides a part of them."""
        return self._channels <= MOST_CHANNELS and (self._window is None or tokens <= self._window)

    def hidden(self, ids: Int[Tensor, "B S"], prefix: Cache) -> Float[Tensor, "B S D"]:
        """Last hidden states of rows behind the prefix.

        Args:
            ids: padded on the right.
            prefix: as ``PrefixStore`` gives it.
        """
        if not self._twin.is_of(self._model):
            self._twin = Twin(self._model, NAME)
        layers = tuple(
            (layer.keys[0], layer.values[0])
            for layer in prefix.layers
            if isinstance(layer, PrefixLayer) and layer.keys is not None and layer.values is not None
        )
        known = layers[0][0].shape[1]
        positions = torch.arange(known, known + ids.shape[1], device=ids.device)[None]
        states: Tensor = self._twin.model.base_model(
            ids, position_ids=positions, use_cache=False, return_dict=True, shared_prefix=_SharedPrefix(layers)
        )[0]
        return states

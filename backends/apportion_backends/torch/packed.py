"""Packed batches through a model, each going on from where the one before it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from apportion.prefix_tree import Row
from apportion_backends.torch.packed_attention import KeysAndValues, Packing, attends_packed, merges_attention
from apportion_backends.torch.packing import lay_out

__all__ = ["PackedModel", "longest_packed_row"]


def longest_packed_row(model: PreTrainedModel) -> int | None:
    """How long rows may be that are packed; ``None`` for any length, 0 if the model does not allow it.

    A layer with a sliding window attends to all that came before while rows are no longer than the window.
    """
    if not model._can_set_attn_implementation():
        return 0
    limit = None
    for layer in DynamicCache(config=model.config).layers:
        if isinstance(layer, DynamicSlidingWindowLayer):
            limit = min(layer.sliding_window, limit or layer.sliding_window)
        elif type(layer) is not DynamicLayer:
            return 0  # a recurrent state, or something unknown
    return limit


class PackedModel:
    """A model that reads rows as a prefix tree.

    Args:
        model: what reads; its attention is exchanged during a forward and put back.
        base: the model without its head, compiled; ``None`` for the model's own.
    """

    def __init__(self, model: PreTrainedModel, base: Callable[..., Any] | None = None) -> None:
        self._model = model
        self._base = model.base_model if base is None else base
        self._compiled = base is not None
        config = model.config.get_text_config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._trunks = merges_attention(model.device, model.dtype, size)
        self._layers: dict[int, KeysAndValues] = {}
        self.kept: tuple[int, ...] = ()
        """Tokens whose keys and values the next forward may go on from."""

    def hidden(self, rows: Sequence[Row]) -> Float[Tensor, "B T D"]:
        """Last hidden states at the positions that predict the targets; what is beyond a row's target is any."""
        pack = lay_out(rows, self.kept, trunks=self._trunks).to(self._model.device)
        packing = Packing(pack, self._layers)
        with attends_packed(self._model, compiled=self._compiled):
            states: Tensor = self._base(
                pack.ids[None], position_ids=pack.positions[None], use_cache=False, return_dict=True, packing=packing
            )[0]
        # Only now: a forward that failed has changed nothing.
        self._layers, self.kept = packing.found, rows[-1].read
        return states[0][pack.predicts]

"""Packed batches through a model, each going on from where the one before it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from apportion.protocols.row import Row
from apportion_backends.torch.onednn import few_sizes, multiplies
from apportion_backends.torch.packed_attention import KeysAndValues, Packing, TrunkAttention, merges_attention, register
from apportion_backends.torch.packing import LEAST_TRUNK, Pack, lay_out
from apportion_backends.torch.twin import Twin

__all__ = ["PackedModel", "longest_packed_row"]


def longest_packed_row(model: PreTrainedModel) -> int | None:
    """The longest row that may be packed; ``None`` for any length, 0 if the model does not allow packing.

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
        model: what reads. A twin of it does, whose attention is that of packed batches.
        compiled: fuse what is between matrix products.
        fused: attention to what rows share and to what follows; two operations and their merging if ``None``.
    """

    def __init__(self, model: PreTrainedModel, *, compiled: bool = False, fused: TrunkAttention | None = None) -> None:
        self._model = model
        self._fused = fused
        config = model.config.get_text_config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        merges = merges_attention(model.device, model.dtype, size)
        self._least_trunk = LEAST_TRUNK if merges else None
        if fused is not None:
            self._least_trunk = min(fused.least, self._least_trunk or fused.least)
        self._attention = register(compiled=compiled)
        self._compiled = compiled
        # The compiler chooses products itself.
        self._onednn = not compiled and multiplies(model.device, model.dtype)
        self._layers: dict[int, KeysAndValues] = {}
        self.kept: tuple[int, ...] = ()
        """Tokens whose keys and values the next forward may go on from."""
        self._make_twin()

    def forget(self) -> None:
        """Keep nothing of what was read; the model may be changed before it reads again."""
        self._layers, self.kept = {}, ()

    def hidden(self, rows: Sequence[Row]) -> Float[Tensor, "B T D"]:
        """Last hidden states at the positions that predict the targets; what is beyond a row's target is any."""
        if not self.kept and not self._twin.is_of(self._model):
            self._make_twin()
        pack = self._lay_out(rows)
        packing = Packing(pack, self._layers, self._fused)
        states: Tensor = self._base(
            pack.ids[None], position_ids=pack.positions[None], use_cache=False, return_dict=True, packing=packing
        )[0]
        # Only now: a forward that failed has changed nothing.
        self._layers, self.kept = packing.found, rows[-1].read
        return states[0][pack.predicts]

    def _lay_out(self, rows: Sequence[Row]) -> Pack:
        device, dtype = self._model.device, self._model.dtype
        # Kernels for GPUs that return the sums want masks of their own shapes, or have none.
        masks = device.type == "cpu" and self._fused is None
        size = few_sizes if self._onednn else None
        pack = lay_out(rows, self.kept, least_trunk=self._least_trunk, masks=masks, size=size)
        return pack.to(device, dtype)

    def _make_twin(self) -> None:
        self._twin = Twin(self._model, self._attention, onednn=self._onednn)
        base: Callable[..., Any] = self._twin.model.base_model
        self._base = torch.compile(base, dynamic=True) if self._compiled else base

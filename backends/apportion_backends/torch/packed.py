"""Packed batches through a model, each going on from where the one before it ended."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from apportion.protocols.row import Row
from apportion_backends.torch.packed_attention import KeysAndValues, Packing, TrunkAttention, merges_attention
from apportion_backends.torch.packed_forward import packed_forward
from apportion_backends.torch.packing import LEAST_TRUNK, Pack, lay_out
from apportion_backends.torch.placement import input_device
from apportion_backends.torch.products import Partners, few_sizes, multiplies

__all__ = ["PackedModel", "longest_packed_row"]


def longest_packed_row(model: PreTrainedModel) -> int | None:
    """The longest row that may be packed; ``None`` for any length, 0 if the model does not allow packing.

    A layer with a sliding window attends to all that came before while rows are no longer than the window.
    """
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
        model: what reads.
        fused: attention to what rows share and to what follows; two operations and their merging if ``None``.
    """

    def __init__(self, model: PreTrainedModel, *, fused: TrunkAttention | None = None) -> None:
        self._model = model
        self._fused = fused
        self._window = longest_packed_row(model)
        config = model.config.get_text_config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        merges = merges_attention(input_device(model), model.dtype, size)
        self._least_trunk = LEAST_TRUNK if merges else None
        if fused is not None:
            self._least_trunk = min(fused.least, self._least_trunk or fused.least)
        self._partners = Partners() if multiplies(input_device(model), model.dtype) else None
        self._layers: dict[int, KeysAndValues] = {}
        self.kept: tuple[int, ...] = ()
        """Tokens whose keys and values the next forward may go on from."""

    def forget(self) -> None:
        """Keep nothing of what was read; the model may be changed before it reads again."""
        self._layers, self.kept = {}, ()

    def hidden(self, rows: Sequence[Row]) -> Float[Tensor, "B T D"]:
        """Last hidden states at the positions that predict the targets; what is beyond a row's target is any.

        Raises:
            ValueError: the model's attention is not one that can be packed.
        """
        pack = self._lay_out(rows)
        packing = Packing(pack, self._layers, self._fused)
        states = packed_forward(
            self._model.base_model, self._model.config, packing, window=self._window, partners=self._partners
        )
        # Only now: a forward that failed has changed nothing.
        self._layers, self.kept = packing.found, rows[-1].read
        return states[pack.predicts]

    def _lay_out(self, rows: Sequence[Row]) -> Pack:
        device, dtype = input_device(self._model), self._model.dtype
        # Kernels for GPUs that return the sums want masks of their own shapes, or have none.
        masks = device.type == "cpu" and self._fused is None
        size = few_sizes if self._partners is not None else None
        pack = lay_out(rows, self.kept, least_trunk=self._least_trunk, masks=masks, size=size)
        return pack.to(device, dtype)

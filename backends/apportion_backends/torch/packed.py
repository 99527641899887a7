"""Packed batches through a model, each going on from where the one before it ended."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from apportion.prefix_tree import Row
from apportion_backends.torch.packed_attention import KeysAndValues, Packing, attends_packed, merges_attention
from apportion_backends.torch.packing import lay_out

__all__ = ["PackedModel", "takes_packed_rows"]


def takes_packed_rows(model: PreTrainedModel) -> bool:
    """Whether the model lets its attention be chosen, and all its layers attend to all that came before."""
    if not model._can_set_attn_implementation():
        return False
    # Sliding windows and recurrent states have layers of their own.
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


class PackedModel:
    """A model that reads rows as a prefix tree.

    Args:
        model: what reads; its attention is exchanged during a forward and put back.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
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
        with attends_packed(self._model):
            states: Tensor = self._model.base_model(
                pack.ids[None], position_ids=pack.positions[None], use_cache=False, return_dict=True, packing=packing
            )[0]
        # Only now: a forward that failed has changed nothing.
        self._layers, self.kept = packing.found, rows[-1].read
        return states[0][pack.predicts]

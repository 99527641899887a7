"""Packed batches through a model, each going on from where the one before it ended.

The model is neither changed nor copied. In the thread of the forward pass PyTorch shows each of its operations to a
``TorchFunctionMode``: attention becomes that of the packed batch, and products are oneDNN's. So whatever a user has
done to the model (hooks, exchanged modules, adapters, other settings) has its effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from apportion.protocols.row import Row
from apportion_backends.packing import LEAST_TRUNK, lay_out
from apportion_backends.torch.inputs import cache_argument, input_device
from apportion_backends.torch.packed_attention import (
    KeysAndValues,
    Packing,
    PackTensors,
    TrunkAttention,
    merges_attention,
    packed_attention,
)
from apportion_backends.torch.products import FusedProducts, Partners, few_sizes, is_watched, multiplies

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


_Kept = tuple[tuple[int, ...], dict[int, KeysAndValues]]
NOTHING: _Kept = ((), {})
"""No tokens, and no keys and values of them."""


class PackedModel:
    """A model that reads rows as a prefix tree.

    Args:
        model: model that reads the rows.
        compiled: fuse the operations between matrix products with PyTorch's compiler, which then chooses products
            itself.
        fused: attention to what rows share and to what follows; two operations and their merging if ``None``.
    """

    def __init__(self, model: PreTrainedModel, *, compiled: bool = False, fused: TrunkAttention | None = None) -> None:
        self._model = model
        self._fused = fused
        self._window = longest_packed_row(model)
        config = model.config.get_text_config()
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        merges = merges_attention(input_device(model), model.dtype, size)
        self._least_trunk = LEAST_TRUNK if merges else None
        if fused is not None:
            self._least_trunk = min(fused.least, self._least_trunk or fused.least)
        onednn = not compiled and multiplies(input_device(model), model.dtype)
        self._partners = Partners() if onednn else None
        base: Callable[..., Any] = model.base_model
        self._base = torch.compile(base, dynamic=True) if compiled else base
        self._warm = False
        # One attribute, because several threads may read with one model.
        self._kept: _Kept = NOTHING

    @property
    def kept(self) -> tuple[int, ...]:
        """Tokens whose keys and values the next forward may go on from."""
        return self._kept[0]

    def forget(self) -> None:
        """Keep nothing of what was read; the model may be changed before it reads again."""
        self._kept = NOTHING

    def hidden(self, rows: Sequence[Row]) -> Float[Tensor, "B T D"]:
        """Last hidden states at the positions that predict the targets; what is beyond a row's target is any.

        Raises:
            ValueError: the model's attention is not one that can be packed.
        """
        if self._partners is not None and not self._warm:
            # What follows each product is seen on one token, so that all batches are computed alike.
            self._forward([Row(rows[0].read[:1], rows[0].target[:1])], NOTHING, learns=True)
            self._warm = True
        pack, packing, states = self._forward(rows, self._kept)
        # Only now: a forward that failed has changed nothing.
        self._kept = rows[-1].read, packing.found
        return states[pack.predicts]

    def _forward(
        self, rows: Sequence[Row], kept: _Kept, *, learns: bool = False
    ) -> tuple[PackTensors, Packing, Float[Tensor, "S D"]]:
        """The batch, what is found of its last row's path, and the last hidden states of all its nodes."""
        device, dtype = input_device(self._model), self._model.dtype
        # Kernels for GPUs that return the sums want masks of their own shapes, or have none.
        masks = device.type == "cpu" and self._fused is None
        size = few_sizes if self._partners is not None else None
        laid_out = lay_out(rows, kept[0], least_trunk=self._least_trunk, masks=masks, size=size)
        pack = PackTensors.of(laid_out, device, dtype)
        packing = Packing(pack, kept[1], self._fused)
        # Rows are no longer than the window, so that it hides nothing, whatever the number of nodes.
        length = len(pack.ids) if self._window is None else pack.longest
        layers = _PackedLayers(self._model.config, length)
        cache = {cache_argument(self._model.base_model): layers.cache}
        partners = None if is_watched() else self._partners
        products = None if partners is None else FusedProducts(partners, learns=learns)
        mode = _PackedForward(packing, layers, products)
        try:
            with mode:
                positions = pack.positions[None]
                states: Tensor = self._base(
                    pack.ids[None], position_ids=positions, use_cache=True, return_dict=True, **cache
                )[0]
        finally:
            mode.active = False
        layers.finish()
        if not packing.found:
            raise ValueError("The model keeps no keys and values.")
        return pack, packing, states[0]


class _PackedLayers:
    """Layers of a cache that keep nothing; they tell which layer is about to attend.

    Args:
        config: the model's.
        length: tokens that a layer attends to, for the model's choice of a mask.
    """

    def __init__(self, config: PreTrainedConfig, length: int) -> None:
        self.length = length
        self._attends: int | None = None
        layers: Sequence[Any] = [_PackedLayer() for _ in DynamicCache(config=config).layers]
        for index, layer in enumerate(layers):
            layer.index, layer.owner = index, self
        self.cache = Cache(layers=list(layers))

    def enter(self, layer: int) -> None:
        """The next attention is that of a layer."""
        self.finish()
        self._attends = layer

    def leave(self) -> int:
        """The layer that attends now.

        Raises:
            ValueError: it has not shown its keys.
        """
        layer, self._attends = self._attends, None
        if layer is None:
            raise ValueError("An attention of this model keeps no keys and values.")
        return layer

    def finish(self) -> None:
        """Check that every layer that has shown its keys has attended.

        Raises:
            ValueError: it has not, or not by PyTorch's function.
        """
        if self._attends is not None:
            raise ValueError("This model does not attend by scaled_dot_product_attention.")


class _PackedLayer(DynamicLayer):
    """One layer of such a cache."""

    index: int
    owner: _PackedLayers

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the keys and values unchanged; earlier ones are added in the attention itself."""
        self.owner.enter(self.index)
        return key_states, value_states

    def get_seq_length(self, *args: Any) -> int:
        """Nothing was kept: positions are given."""
        return 0

    def get_mask_sizes(self, *args: Any) -> tuple[int, int]:
        """Sizes for which no mask is needed."""
        return self.owner.length, 0


class _PackedForward(TorchFunctionMode):
    """The context of a packed forward pass, in one thread."""

    def __init__(self, packing: Packing, layers: _PackedLayers, products: FusedProducts | None) -> None:
        super().__init__()
        self.active = True
        """True during the forward pass; an interrupt may leave the mode in PyTorch's stack."""
        self._packing = packing
        self._layers = layers
        self._products = products

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what the model asks for, its attention and its products in their own way."""
        # Called two thousand times in a forward pass of SmolLM2, so the usual case comes quickly.
        if not self.active:
            return func(*args, **kwargs or {})
        products = self._products
        if products is not None and (products.waits or func is functional.linear):
            found = products(func, args, kwargs or {})
            if found is not None:
                return found
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs or {})
        return func(*args, **kwargs) if kwargs else func(*args)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._products is not None and error[0] is None:
            self._products.finish()

    def _attend(
        self,
        query: Float[Tensor, "1 H S D"],
        key: Float[Tensor, "1 G S D"],
        value: Float[Tensor, "1 G S D"],
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Float[Tensor, "1 H S D"]:
        nodes = len(self._packing.pack.ids)
        causal = is_causal or nodes == 1
        if attn_mask is not None or dropout_p or not causal or not query.shape[2] == key.shape[2] == nodes:
            raise ValueError("This attention has a mask, is not causal, or is not between the tokens of the batch.")
        return packed_attention(query, key, value, self._layers.leave(), self._packing, scale)

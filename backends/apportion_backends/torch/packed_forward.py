"""A forward pass of a model's own modules, with the attention of a packed batch.

The model is neither changed nor copied. In the thread of the forward pass PyTorch shows each of its operations to a
``TorchFunctionMode``: attention becomes that of the packed batch, and products are oneDNN's. So whatever a user has
done to the model (hooks, exchanged modules, adapters, other settings) has its effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import Cache, DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

from apportion_backends.torch.cache_argument import cache_argument
from apportion_backends.torch.packed_attention import Packing, packed_attention
from apportion_backends.torch.products import FusedProducts, Partners

__all__ = ["packed_forward"]


def packed_forward(
    base: nn.Module, config: PreTrainedConfig, packing: Packing, *, window: int | None, partners: Partners | None
) -> Float[Tensor, "S D"]:
    """Last hidden states of all nodes of a packed batch.

    Args:
        base: the model without its head.
        config: the model's.
        packing: the batch; takes the keys and values of the last row's path.
        window: tokens that some layer's sliding window spans; ``None`` if no layer has one.
        partners: for products by oneDNN; ``None`` to leave products to PyTorch.

    Raises:
        ValueError: the model attends in another way than by PyTorch's scaled dot-product attention of queries to the
            keys that it would keep in a cache, or wants a mask.
    """
    pack = packing.pack
    # Rows are no longer than the window, so that it hides nothing, whatever the number of nodes.
    length = len(pack.ids) if window is None else pack.longest
    layers = _PackedLayers(config, length)
    with _PackedForward(packing, layers, partners):
        found: Tensor = base(
            pack.ids[None],
            position_ids=pack.positions[None],
            use_cache=True,
            return_dict=True,
            **{cache_argument(base): layers.cache},
        )[0]
    layers.finish()
    if not packing.found:
        raise ValueError("The model keeps no keys and values.")
    return found[0]


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
        """The same keys and values; those of before are added where the layer attends."""
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

    def __init__(self, packing: Packing, layers: _PackedLayers, partners: Partners | None) -> None:
        super().__init__()
        self._packing = packing
        self._layers = layers
        self._products = None if partners is None else FusedProducts(partners)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what the model asks for, its attention and its products in their own way."""
        kwargs = kwargs or {}
        if self._products is not None and self._products.concern(func):
            found = self._products(func, args, kwargs)
            if found is not None:
                return found
        if func is functional.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

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

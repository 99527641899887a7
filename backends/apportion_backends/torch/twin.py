"""A model's modules anew, around the same tensors: what is set there leaves the user's model as it is."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel

from apportion_backends.torch.linear import OneDnnLinear, multiplies

__all__ = ["Twin"]


class Twin:
    """A copy of a model that shares its weights, with another attention and faster products.

    Several threads may score with one model, so nothing of it is exchanged while they do. Weights that are trained in
    place are the twin's too; where modules, tensors or hooks were exchanged, ``is_of`` says no.

    Args:
        model: what is copied, in the mode in which it is.
        attention: a name registered with transformers' ``AttentionInterface``.
        products: whether linear layers may multiply in another way.
    """

    def __init__(self, model: PreTrainedModel, attention: str, *, products: bool = True) -> None:
        self._original = model
        self._parts = _parts(model)
        tensors = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
        self.model: PreTrainedModel = copy.deepcopy(model, tensors)
        self.model.set_attn_implementation(attention)
        if products and multiplies(model.device, model.dtype):
            _exchange_products(self.model)

    def is_of(self, model: PreTrainedModel) -> bool:
        """Whether this is still the twin of a model."""
        return model is self._original and _parts(model) == self._parts


def _exchange_products(twin: nn.Module) -> None:
    for module in twin.modules():
        # Not what is derived from a linear layer, or computes its weights: those know better what to do.
        if type(module) is nn.Linear and module.weight.dtype == torch.float32:
            module.__class__ = OneDnnLinear


def _parts(model: torch.nn.Module) -> list[Hashable]:
    """What a model is made of, in a few thousand steps."""
    return [
        (
            id(module),
            *map(id, module._parameters.values()),
            *map(id, module._buffers.values()),
            *module._forward_hooks,
            *module._forward_pre_hooks,
        )
        for module in model.modules()
    ]

"""A model's modules anew, around the same tensors: what is set there leaves the user's model as it is."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from itertools import chain

import torch
from torch import nn
from transformers import PreTrainedModel

from apportion_backends.torch.onednn import exchange_products

__all__ = ["Twin", "module_overrides"]


class Twin:
    """A copy of a model that shares its weights, with another attention and faster products.

    Several threads may score with one model, so nothing of it is exchanged while they do. Weights that are trained in
    place are the twin's too; where modules, tensors or hooks were exchanged, ``is_of`` says no.

    Args:
        model: what is copied, in the mode in which it is.
        attention: a name registered with transformers' ``AttentionInterface``.
        onednn: whether its products are oneDNN's, as far as it has them.
    """

    def __init__(self, model: PreTrainedModel, attention: str, *, onednn: bool = False) -> None:
        self._original = model
        self._parts = _parts(model)
        tensors = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
        self.model: PreTrainedModel = copy.deepcopy(model, tensors)
        self.model.set_attn_implementation(attention)
        if onednn:
            exchange_products(self.model)

    def is_of(self, model: PreTrainedModel) -> bool:
        """True if this is still the twin of a model."""
        return model is self._original and _parts(model) == self._parts


def module_overrides(model: PreTrainedModel) -> tuple[int, ...]:
    """Replaced forwards and hooks on the model or its head, which rule out shortcuts around the model's own forward."""
    parts = [part for part in (model, model.get_output_embeddings()) if isinstance(part, nn.Module)]
    hooks = [key for part in parts for key in (*part._forward_hooks, *part._forward_pre_hooks)]
    return (*map(id, parts), *(id(vars(part).get("forward")) for part in parts), *hooks)


def _parts(model: torch.nn.Module) -> list[Hashable]:
    """The modules, tensors and hooks that make up a model."""
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

"""A model whose layers are computed again in the backward pass, so that long prompts fit into memory."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from apportion_backends.torch.edits import Here

__all__ = ["recomputing"]


def recomputing(base: nn.Module, here: Here) -> nn.Module | None:
    """The same model, of which only what enters each layer is kept for backward passes.

    It shares all modules with the model, which does not change.

    Args:
        base: a model without its head.
        here: is active while a layer is computed again.

    Returns:
        ``None`` if the layers of the model cannot be told.
    """
    path = _path_to_layers(base)
    if path is None:
        return None
    modules: list[nn.Module] = [base]
    for name in path:
        modules.append(modules[-1]._modules[name])  # type: ignore[arg-type]
    layers = modules.pop()
    assert isinstance(layers, nn.ModuleList)
    new: nn.Module = nn.ModuleList([_Recomputed(layer, here) for layer in layers])
    for module, name in zip(reversed(modules), reversed(path), strict=True):
        if "forward" in vars(module):  # of a user or of accelerate, bound to the module itself
            return None
        shared = copy.copy(module)
        shared._modules = {**module._modules, name: new}
        new = shared
    return new


def _path_to_layers(base: nn.Module) -> tuple[str, ...] | None:
    """The names that lead to the list of layers: the longest list of modules of one class."""
    depth = getattr(getattr(base, "config", None), "num_hidden_layers", None)
    for name, module in base.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth and len({type(one) for one in module}) == 1:
            return tuple(name.split("."))
    return None


class _Recomputed(nn.Module):
    """A layer of which only what it reads is kept."""

    def __init__(self, layer: nn.Module, here: Here) -> None:
        super().__init__()
        self.layer = layer
        self._here = here

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the layer, and again in each backward pass."""

        def compute(*args: Any) -> Any:
            with self._here.computing():
                return self.layer(*args, **kwargs)

        return checkpoint(compute, *args, use_reentrant=False, preserve_rng_state=False)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

"""Inputs of a model: their device, the name of its cache, and tokens with a part of their own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import Any

import torch
from torch import nn

__all__ = ["cache_argument", "input_device", "ordinary_ids", "padding_ids"]


def input_device(model: nn.Module) -> torch.device:
    """The device of a model's inputs; for an offloaded model, the one on which accelerate's hooks compute."""
    embeddings: Any = getattr(model, "get_input_embeddings", None)
    for module in (model, embeddings() if callable(embeddings) else None):
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))


def cache_argument(model: nn.Module) -> str:
    """The name of the cache in a model's forward: ``"cache"`` where it knows that, else ``"past_key_values"``."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def padding_ids(model: nn.Module) -> frozenset[int]:
    """Ids of the padding tokens that the configuration or a module names, and that the model can read."""
    layer: Any = model.get_input_embeddings()  # type: ignore[operator]
    named = {getattr(module, "padding_idx", None) for module in model.modules()}
    known = named | {i for name, i in _named_ids(model) if name == "pad_token_id"}
    size = getattr(layer, "num_embeddings", None)
    return frozenset(i for i in known if type(i) is int and i >= 0 and (size is None or i < size))


def ordinary_ids(model: nn.Module, number: int) -> tuple[int, ...]:
    """The first ids from 1 that are neither padding nor named by the configuration, such as the end of a text."""
    named = padding_ids(model) | {i for _, i in _named_ids(model)}
    size = getattr(model.get_input_embeddings(), "num_embeddings", None)  # type: ignore[operator]
    found = (i for i in (range(1, size) if isinstance(size, int) else count(1)) if i not in named)
    chosen = tuple(islice(found, number))
    return chosen if len(chosen) == number else tuple(range(number))


def _named_ids(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Name and id of the tokens of the configurations."""
    for config in (getattr(model, "config", None), getattr(model, "generation_config", None)):
        yield from _ids_in(config.to_dict() if config is not None else {})


def _ids_in(values: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _ids_in({key: held for key, held in value.items() if isinstance(key, str)})
        elif name.endswith("_token_id"):
            yield from ((name, i) for i in (value if isinstance(value, list | tuple) else [value]) if type(i) is int)

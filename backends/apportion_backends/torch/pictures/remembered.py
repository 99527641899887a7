"""Memory of what the probe of pictures found: in a file for models loaded from files, else in memory."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from apportion.errors import CapabilityError
from apportion.files import cached_json, keep_json
from apportion.rendering import picture_writer
from apportion_backends.own_code import code_hash
from apportion_backends.torch.pictures.probe import PictureTraits, probe_pictures
from apportion_backends.torch.pictures.token_types import TokenTypes
from apportion_backends.torch.pictures.vision_inputs import processor_settings
from apportion_backends.torch.remembered import traits_key
from apportion_backends.torch.structure import ModelState, observe

__all__ = ["picture_traits"]

FILE = "picture-traits"

_FOUND: WeakKeyDictionary[PreTrainedModel, tuple[ModelState, str, PictureTraits]] = WeakKeyDictionary()
"""Traits of model objects, and the structure and the processor that they were found for."""


def picture_traits(model: PreTrainedModel, processor: Any, *, owned: bool) -> PictureTraits:
    """The traits of a model with pictures, from memory or by probing it.

    Args:
        model: the model.
        processor: its processor.
        owned: apportion loaded the model from files.
    """
    settings = f"{type(processor).__name__} {processor_settings(processor)}"
    return _of_files(model, processor, settings) if owned else _of_object(model, processor, settings)


def _of_object(model: PreTrainedModel, processor: Any, settings: str) -> PictureTraits:
    state = observe(model)
    known = _FOUND.get(model)
    if known is not None and known[:2] == (state, settings) and not state.opaque:
        return known[2]
    found = probe_pictures(model, processor)
    _FOUND[model] = observe(model), settings, found
    return found


def _of_files(model: PreTrainedModel, processor: Any, settings: str) -> PictureTraits:
    try:
        key = traits_key(model, settings, code_hash(Path(picture_writer.__file__).parent))
    except CapabilityError:  # hooks, or replaced functions: nobody can tell what the model is
        return probe_pictures(model, processor)
    known = _traits(cached_json(FILE, key))
    if known is not None:
        return known
    found = probe_pictures(model, processor)
    keep_json(FILE, key, asdict(found))
    return found


def _traits(data: object) -> PictureTraits | None:
    """Traits from a cached value; ``None`` if it is anything else."""
    if not isinstance(data, dict):
        return None
    wanted = asdict(PictureTraits())
    if {name: type(value) for name, value in data.items()} != {name: type(value) for name, value in wanted.items()}:
        return None
    types = data["types"]
    if set(types) != set(wanted["types"]) or type(types["of_target"]) is not int:
        return None
    lists = {name: types[name] for name in ("of_pictures", "of_nothing", "image_ids")}
    if not all(isinstance(one, list) for one in lists.values()):
        return None
    known: dict[str, Any] = {name: tuple(one) for name, one in lists.items()}
    return PictureTraits(**{**data, "types": TokenTypes(**known, of_target=types["of_target"])})

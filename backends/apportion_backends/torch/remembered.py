"""Memory of what the probe found, so that a model need not be tried again.

In a file, for models that apportion loaded from files: a user may have changed an object in ways that no fingerprint
shows to the next process. The key covers everything that the findings may depend on: configuration, weights and code of
the model, attention functions, versions, device, dtype, the machine's instruction set, and the code of the probe.

In memory, for a user's model object: for as long as it lives and looks the same, as within a session.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, fields
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
import transformers
from transformers import PreTrainedModel

from apportion._version import __version__
from apportion.errors import CapabilityError
from apportion.files import cached_json, keep_json
from apportion_backends.own_code import code_hash
from apportion_backends.torch.checksum import model_checksum
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.probe import probe
from apportion_backends.torch.structure import ModelState, observe

__all__ = ["remembered_traits", "traits_key", "traits_of_object"]

_FOUND: WeakKeyDictionary[PreTrainedModel, tuple[ModelState, Traits]] = WeakKeyDictionary()
"""Traits of model objects, and the structure that they were found for."""


def traits_of_object(model: PreTrainedModel) -> Traits:
    """The traits of a user's model: those that another session found, if nothing was seen to change; else by probing.

    Raises:
        ModelError: the model is not causal, or gives numbers that are not finite.
    """
    state = observe(model)
    known = _FOUND.get(model)
    if known is not None and known[0] == state and not state.opaque:
        return known[1]
    found = probe(model)
    _FOUND[model] = state, found
    return found


def remembered_traits(model: PreTrainedModel) -> Traits:
    """The traits of a model that was just loaded from files, from the cache or by probing it.

    Raises:
        ModelError: the model is not causal, or gives numbers that are not finite.
    """
    try:
        key = traits_key(model)
    except CapabilityError:  # hooks, or replaced functions: nobody can tell what the model is
        return probe(model)
    known = _traits(cached_json("traits", key))
    if known is not None:
        return known
    found = probe(model)
    keep_json("traits", key, asdict(found))
    return found


def _traits(data: object) -> Traits | None:
    """Traits from a cached value; ``None`` if it is anything else."""
    if not isinstance(data, dict) or set(data) != {field.name for field in fields(Traits)}:
        return None
    lengths = {"packing_limit", "probed_length"}
    flags = [value for name, value in data.items() if name not in lengths]
    if not all(isinstance(flag, bool) for flag in flags):
        return None
    if not all(data[name] is None or type(data[name]) is int for name in lengths):
        return None
    return Traits(**data)


def traits_key(model: PreTrainedModel, *more: str) -> str:
    """A hash of everything that decides what a probe finds.

    Args:
        model: the model.
        *more: other texts that it depends on.

    Raises:
        CapabilityError: hooks, or replaced functions: nobody can tell what the model is.
    """
    device = input_device(model)
    parts = (
        model_checksum(model),
        (__version__, torch.__version__, transformers.__version__),
        (str(model.dtype), device.type, torch.cuda.get_device_name(device) if device.type == "cuda" else ""),
        (torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), torch.get_float32_matmul_precision()),
        sorted((name, value) for name, value in os.environ.items() if name.startswith(("ONEDNN_", "DNNL_", "MKL_"))),
        code_hash(Path(__file__).parent, Path(__file__).parent / "pictures", Path(__file__).parent.parent),
        more,
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

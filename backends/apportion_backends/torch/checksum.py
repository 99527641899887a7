"""A checksum of whatever decides a model's scores, as far as it can be seen."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from apportion.errors import CapabilityError
from apportion_backends.torch.stable_text import stable
from apportion_backends.torch.tensor_sums import TensorSums

__all__ = ["code_of", "model_checksum", "user_hooks"]

DEEPEST = 8
"""Levels of nested lists and dicts that are looked into."""
ATOMS = (bool, int, float, complex, str, bytes, type(None), enum.Enum, torch.dtype, torch.device, torch.layout)
OWN_OF_TORCH = frozenset(vars(nn.Module()))
BOOKKEEPING = frozenset(
    {
        "generation_config",
        "name_or_path",
        "_name_or_path",
        "transformers_version",
        "loss_type",
        "_is_hf_initialized",
        "_weight_conversions",
        "_output_capturing_hooks_installed",
    }
)
"""Attributes of modules and configurations that have no part in a forward."""
SAVED = frozenset({"architectures", "dtype"})
"""What ``save_pretrained`` writes into a configuration; a forward reads neither."""
OBSERVERS = "transformers.utils.output_capturing"
"""Its hooks stay on a model that was once asked for hidden states, and change nothing."""


def model_checksum(model: nn.Module) -> str:
    """A hash of a model's tensors (every bit), classes, code of ``forward``, settings and configuration.

    Not seen: a change in functions that a ``forward`` calls by their global names, and inside objects that are
    neither modules, tensors, configurations nor plain data.

    Raises:
        CapabilityError: hooks on a module, a ``forward`` replaced on an object, weights that are not in memory.
    """
    for hooks in ("_global_forward_hooks", "_global_forward_pre_hooks"):
        if getattr(nn.modules.module, hooks, None):
            raise CapabilityError("a hook is registered on all modules (register_module_forward_hook or its like)")
    walk = _Walk()
    # Quantised modules show their weights nowhere else; keep_vars, so that each tensor is read once.
    for name, value in model.state_dict(keep_vars=True).items():
        walk.value(name, value)
    walk.module("", model)
    return walk.digest.hexdigest()


def code_of(model: nn.Module) -> str:
    """A hash of the code that a forward may call by global names.

    Covers all functions and methods in the Python modules that define the model's classes, and the registered attention
    functions: packages that speed models up replace some of these.
    """
    walk = _Walk()
    for name in sorted({type(module).__module__ for module in model.modules()}):
        for key, thing in sorted(vars(sys.modules[name]).items()):
            if inspect.isfunction(thing):
                walk.text(name, key)
                walk.function(thing)
            elif inspect.isclass(thing) and thing.__module__ == name:
                walk.text(name, key)
                for function in vars(thing).values():
                    if inspect.isfunction(function):
                        walk.function(function)
    for name in sorted(ALL_ATTENTION_FUNCTIONS.keys()):
        if not name.startswith("apportion"):
            walk.text(name)
            walk.function(ALL_ATTENTION_FUNCTIONS[name])
    return walk.digest.hexdigest()


class _Walk:
    """One pass over a model, in a fixed order; all that is found goes into ``digest`` with its name."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=32)
        self._sums = TensorSums()
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []

    def text(self, *parts: object) -> None:
        """Names and plain values; their length keeps them apart from what follows."""
        encoded = repr(parts).encode("utf-8", "backslashreplace")
        self.digest.update(len(encoded).to_bytes(8, "little") + encoded)

    def first_time(self, thing: object) -> bool:
        """True when an object is met for the first time; its number represents it from then on."""
        new = id(thing) not in self._numbers
        if new:
            self._numbers[id(thing)] = len(self._numbers)
            self._kept.append(thing)  # so that no other object gets its id
        self.text("object", self._numbers[id(thing)])
        return new

    def module(self, name: str, module: nn.Module) -> None:
        """A module and all modules that it holds, registered or not."""
        self.text("module", name)
        if not self.first_time(module):
            return
        _refuse_hooks(name, module)
        self.text(type(module).__module__, type(module).__qualname__, stable(module.extra_repr()))
        self.function(type(module).forward)
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            self.value(key, tensor)
        for key, value in vars(module).items():
            if key not in OWN_OF_TORCH and key not in BOOKKEEPING:
                self.value(key, value)
        for key, child in module._modules.items():
            if child is not None:
                self.module(f"{name}.{key}" if name else key, child)

    def value(self, name: str, value: Any, depth: int = 0) -> None:
        """Anything that a module holds."""
        self.text(name, type(value).__module__, type(value).__qualname__)
        if isinstance(value, Tensor):
            self.tensor(name, value)
        elif isinstance(value, nn.Module):
            self.module(name, value)
        elif isinstance(value, ATOMS):
            self.text(stable(repr(value)))
        elif isinstance(value, set | frozenset):
            self.text(*sorted(stable(repr(item)) for item in value))
        elif inspect.isroutine(value) or isinstance(value, type) or hasattr(value, "__wrapped__"):
            self.function(value)
        elif _is_configuration(value):
            self.configuration(value, depth)
        elif depth < DEEPEST:
            for key, item in _parts(value):
                self.value(key, item, depth + 1)

    def tensor(self, name: str, tensor: Tensor) -> None:
        """Shape, dtype and every bit, once where several modules share it."""
        if self.first_time(tensor):
            self.text(tuple(tensor.shape), str(tensor.dtype))
            for part in self._sums(name, tensor):
                self.text(len(part))
                self.digest.update(part)

    def configuration(self, config: Any, depth: int) -> None:
        """The settings of a configuration, and the implementations that it selects."""
        if self.first_time(config) and depth < DEEPEST:
            settings = {key: value for key, value in config.to_dict().items() if key not in SAVED}
            self.value("configuration", settings, depth + 1)
            for chosen in ("_attn_implementation", "_experts_implementation"):
                self.text(chosen, repr(getattr(config, chosen, None)))

    def function(self, function: Any) -> None:
        """A function's name and, where it is Python's, its code and what it closes over."""
        function = getattr(function, "__func__", function)
        if not self.first_time(function):
            return
        self.text(getattr(function, "__module__", None), getattr(function, "__qualname__", type(function).__qualname__))
        for layer in (function, inspect.unwrap(function)):
            self.code(getattr(layer, "__code__", None))
        for cell in getattr(function, "__closure__", None) or ():
            self.value("cell", _content(cell), DEEPEST - 1)

    def code(self, code: CodeType | None) -> None:
        """Instructions, names and constants of a function and of those defined inside it."""
        if code is None:
            return
        self.text(code.co_code, code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self.code(constant)
            elif isinstance(constant, (*ATOMS, tuple)):
                self.text(stable(repr(constant)))


def user_hooks(module: nn.Module) -> Iterator[tuple[int, Any]]:
    """Forward hooks of a module and their keys, without those of transformers that only observe."""
    for key, hook in (*module._forward_hooks.items(), *module._forward_pre_hooks.items()):
        if getattr(hook, "__module__", None) != OBSERVERS:
            yield key, hook


def _refuse_hooks(name: str, module: nn.Module) -> None:
    called = f"the module {name!r}" if name else "the model"
    for _, hook in user_hooks(module):
        raise CapabilityError(f"{called} has a forward hook, {getattr(hook, '__qualname__', type(hook).__name__)}")
    if "forward" in vars(module):
        raise CapabilityError(f"the forward of {called} was replaced on the object")


def _is_configuration(value: object) -> bool:
    return callable(getattr(value, "to_dict", None))


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """The contents of a container; nothing for objects of unknown types."""
    if isinstance(value, Mapping):
        return [(stable(repr(key)), item) for key, item in value.items() if key not in BOOKKEEPING]
    if isinstance(value, list | tuple):
        return [(str(i), item) for i, item in enumerate(value)]
    if isinstance(value, functools.partial):
        return [("function", value.func), ("arguments", value.args), ("keywords", value.keywords)]
    if isinstance(value, np.ndarray | np.generic):
        return [("dtype", value.dtype.str), ("shape", value.shape), ("bytes", value.tobytes())]
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    return list(vars(value).items()) if isinstance(value, SimpleNamespace) else []


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None

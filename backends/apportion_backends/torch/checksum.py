"""A checksum of everything that decides a model's scores, as far as it can be inspected."""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import os
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from apportion.errors import CapabilityError
from apportion_backends.torch.stable_text import stable
from apportion_backends.torch.tensor_sums import TensorSums
from apportion_backends.torch.user_code import KNOWN_PACKAGES, is_known, own_forward, user_hooks

__all__ = ["ATOMS", "BOOKKEEPING", "OWN_OF_TORCH", "model_checksum"]

INSTALLED = f"{os.sep}site-packages{os.sep}"
"""Parts of the paths of installed packages, whose global names keep their values."""
DEEPEST = 32
"""Levels of nested lists, dicts and objects that are looked into."""
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
"""Attributes of modules and configurations that have no effect on a forward pass."""
SAVED = frozenset({"architectures", "dtype"})
"""Settings that ``save_pretrained`` writes into a configuration; a forward pass reads neither."""


def model_checksum(model: nn.Module) -> str:
    """A hash of a model's tensors (every bit), classes, code of ``forward``, settings and configuration.

    Functions are looked into as far as they are a user's: their code, what they close over, and what they refer to by
    global names. Of packages such as transformers, whatever the modules that define the model's classes contain.

    Raises:
        CapabilityError: hooks on a module, a ``forward`` replaced on an object, weights that are not in memory, an
            object whose contents cannot be seen.
    """
    for hooks in ("_global_forward_hooks", "_global_forward_pre_hooks"):
        if getattr(nn.modules.module, hooks, None):
            raise CapabilityError("a hook is registered on all modules (register_module_forward_hook or its like)")
    walk = _Walk()
    walk.text(code_of(model))
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
    for name, function in sorted(vars(functional).items()):
        # Packages that speed models up replace PyTorch's own functions.
        if callable(function) and not is_known(function):
            walk.text(name)
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
        self.digest.update(_encoded(parts))

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
        self.methods(type(module))
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            self.value(key, tensor)
            # Packed weights of 4 bits hold what they are scaled by in attributes.
            for extra, value in vars(tensor).items() if tensor is not None else ():
                self.value(f"{key}.{extra}", value)
        for part in ("weight", "bias"):
            # Some quantised layers compute their tensors when asked.
            if inspect.ismethod(getattr(module, part, None)):
                self.value(part, getattr(module, part)())
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
        elif depth >= DEEPEST:
            raise CapabilityError(f"the attribute {name!r} is nested more than {DEEPEST} levels deep")
        else:
            self.contents(name, value, depth)

    def contents(self, name: str, value: Any, depth: int) -> None:
        """Hash the contents of a container or an object."""
        parts = _parts(value)
        if parts is None and is_known(type(value)):
            if type(value).__module__.partition(".")[0] in sys.stdlib_module_names:
                self.text(stable(repr(value)))
        elif parts is None:
            parts = self.object(name, value)
        for key, item in parts or ():
            self.value(key, item, depth + 1)

    def object(self, name: str, value: Any) -> Iterable[tuple[str, Any]]:
        """The attributes of an object of a user's class, whose methods are hashed; nothing if it was met before."""
        if not self.first_time(value):
            return ()
        self.methods(type(value))
        slots = [slot for kind in type(value).__mro__ for slot in vars(kind).get("__slots__", ())]
        if not hasattr(value, "__dict__") and not slots:
            raise CapabilityError(f"the attribute {name!r} is a {type(value).__qualname__}, whose contents are hidden")
        held = dict(getattr(value, "__dict__", {}))
        return [*held.items(), *((slot, getattr(value, slot, None)) for slot in slots if slot != "__dict__")]

    def methods(self, kind: type) -> None:
        """The code of a user's class and of its parents."""
        for parent in kind.__mro__:
            for key, value in () if is_known(parent) else vars(parent).items():
                if isinstance(value, property):
                    value = (value.fget, value.fset)
                elif isinstance(value, staticmethod | classmethod):
                    value = value.__func__
                if inspect.isfunction(value) or isinstance(value, (*ATOMS, tuple, Tensor)):
                    self.value(key, value)

    def tensor(self, name: str, tensor: Tensor) -> None:
        """Shape, dtype and every bit, once where several modules share it."""
        if self.first_time(tensor):
            self.text(tuple(tensor.shape), str(tensor.dtype))
            for part in self._sums(name, tensor):
                self.text(len(part))
                self.digest.update(part)

    def configuration(self, config: Any, depth: int) -> None:
        """The settings of a configuration, and the implementations that it selects."""
        if self.first_time(config):
            settings = {key: value for key, value in config.to_dict().items() if key not in SAVED}
            self.value("configuration", settings, depth + 1)
            for chosen in ("_attn_implementation", "_experts_implementation"):
                self.text(chosen, repr(getattr(config, chosen, None)))

    def function(self, function: Any) -> None:
        """A function's name and, where it is Python's, its code and whatever it refers to."""
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, ModuleType | type):
            self.value("self", owner)
        function = getattr(function, "__func__", function)
        if not self.first_time(function):
            return
        self.text(getattr(function, "__module__", None), getattr(function, "__qualname__", type(function).__qualname__))
        if isinstance(function, type):
            self.methods(function)
            return
        for layer in (function, inspect.unwrap(function)):
            code = getattr(layer, "__code__", None)
            if isinstance(code, CodeType):
                self.code(code)
        for cell in getattr(function, "__closure__", None) or ():
            self.value("cell", _content(cell))
        if inspect.isfunction(function) and not is_known(function) and INSTALLED not in function.__code__.co_filename:
            self.references(function)

    def references(self, function: FunctionType) -> None:
        """Defaults of a user's function, and what it refers to by global names."""
        self.value("defaults", (function.__defaults__, function.__kwdefaults__))
        attributes = {name for part in _nested(function.__code__) for name in part.co_names}
        for name in sorted(_global_names(function.__code__)):
            value = function.__globals__.get(name)
            if not isinstance(value, ModuleType):
                self.value(name, value)
            elif not _is_installed(value):
                for attribute in sorted(attributes & vars(value).keys()):
                    self.value(attribute, vars(value)[attribute])

    def code(self, code: CodeType) -> None:
        """Instructions, names and constants of a function and of those defined inside it."""
        self.digest.update(_encoded_code(code))


def _refuse_hooks(name: str, module: nn.Module) -> None:
    called = f"the module {name!r}" if name else "the model"
    for _, hook in user_hooks(module):
        raise CapabilityError(f"{called} has a forward hook, {getattr(hook, '__qualname__', type(hook).__name__)}")
    moved_by = getattr(module, "_hf_hook", None)
    for hook in getattr(moved_by, "hooks", (moved_by,)):
        if not is_known(type(hook)):
            raise CapabilityError(f"{called} has a hook of accelerate's kind, {type(hook).__name__}")
    if own_forward(module):
        raise CapabilityError(f"the forward of {called} was replaced on the object")


def _is_configuration(value: object) -> bool:
    return callable(getattr(type(value), "to_dict", None))


def _parts(value: Any) -> Iterable[tuple[str, Any]] | None:
    """The contents of a container or of an object of plain data; ``None`` for other objects."""
    if isinstance(value, Mapping):
        return [(stable(repr(key)), item) for key, item in value.items() if key not in BOOKKEEPING]
    if isinstance(value, list | tuple | deque):
        return [(str(i), item) for i, item in enumerate(value)]
    if isinstance(value, functools.partial):
        return [("function", value.func), ("arguments", value.args), ("keywords", value.keywords)]
    if isinstance(value, np.ndarray | np.generic):
        return [("dtype", value.dtype.str), ("shape", value.shape), ("bytes", value.tobytes())]
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    # What a packed weight is scaled by.
    looked_into = isinstance(value, SimpleNamespace | Namespace) or type(value).__module__.startswith("bitsandbytes.")
    return list(vars(value).items()) if looked_into else None


def _is_installed(module: ModuleType) -> bool:
    """True for modules of Python and of installed packages."""
    return module.__name__.partition(".")[0] in KNOWN_PACKAGES or INSTALLED in (getattr(module, "__file__", "") or "")


def _nested(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of those defined inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _encoded(parts: tuple[object, ...]) -> bytes:
    text = repr(parts).encode("utf-8", "backslashreplace")
    return len(text).to_bytes(8, "little") + text


# Code cannot change, and a run meets that of all of a model's modules again.
@functools.lru_cache(maxsize=8192)
def _encoded_code(code: CodeType) -> bytes:
    """Instructions, names and constants of a function and of those defined inside it."""
    found = bytearray()
    for part in _nested(code):
        found += _encoded((part.co_code, part.co_names))
        for constant in part.co_consts:
            if isinstance(constant, (*ATOMS, tuple)):
                found += _encoded((stable(repr(constant)),))
    return bytes(found)


@functools.lru_cache(maxsize=8192)
def _global_names(code: CodeType) -> frozenset[str]:
    """Global names that a function refers to."""
    steps = (step for part in _nested(code) for step in dis.get_instructions(part))
    return frozenset(step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"))


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None

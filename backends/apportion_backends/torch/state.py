"""A cheap look at a model's structure: whether the findings of an earlier look still hold.

Scores always come from the model as it is. Only the shortcuts that a model allows (rows that share a batch or a prefix)
are found out once, and hold as long as its structure does.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from apportion_backends.torch.checksum import ATOMS, BOOKKEEPING, OWN_OF_TORCH, user_hooks

__all__ = ["ModelState", "observe"]

KNOWN_PACKAGES = frozenset({"torch", "transformers", "peft", "accelerate", "torchao", "bitsandbytes"})
"""Packages whose modules do the same with a token wherever it stands in a batch, as the probe has found; unless one of
their attributes is changed, which is seen."""
DEEPEST = 4
"""Levels of nested containers that are looked into."""
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model's structure at one moment. Two states are equal if nothing was seen to change.

    Attributes:
        parts: modules, their classes, hooks, settings, and the shapes of their tensors.
        opaque: some part is code of a user, whose state cannot be seen: it may look at the places of tokens.
        versions: how often tensors were changed in place, as far as PyTorch counts.
    """

    parts: tuple[object, ...]
    opaque: bool
    versions: int


def observe(model: nn.Module) -> ModelState:
    """Look at a model's structure; takes a few milliseconds."""
    look = _Look()
    for module in model.modules():
        look.module(module)
    for name in sorted(look.python_modules):
        look.parts.append((name, *map(id, vars(sys.modules[name]).values())))
    for hooks in GLOBAL_HOOKS:
        look.hooks(getattr(nn.modules.module, hooks, {}).items())
    chosen = getattr(getattr(model, "config", None), "_attn_implementation", None)
    look.parts.append((chosen, id(ALL_ATTENTION_FUNCTIONS.get(chosen))))
    return ModelState(tuple(look.parts), look.opaque, look.versions)


class _Look:
    """One pass over a model."""

    def __init__(self) -> None:
        self.parts: list[object] = []
        self.opaque = False
        self.versions = 0
        self.python_modules: set[str] = set()
        self._classes: set[type] = set()
        self._seen: set[int] = set()

    def module(self, module: nn.Module) -> None:
        kind = type(module)
        if kind not in self._classes:
            self._class(kind)
        # A reference, so that no other module at the same address passes for this one.
        self.parts.append((weakref.ref(module), kind))
        self.hooks(user_hooks(module))
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    self.parts.append((name, type(tensor), tensor.dtype, tensor.device, tensor.shape))
                    # Tensors made in inference mode do not count.
                    self.versions += 0 if tensor.is_inference() else tensor._version
        for name, value in vars(module).items():
            if name not in OWN_OF_TORCH and name not in BOOKKEEPING:
                self.parts.append(name)
                self.value(value)
        if "forward" in vars(module):
            self.opaque = True

    def hooks(self, hooks: Iterable[tuple[int, Any]]) -> None:
        for key, hook in hooks:
            self.parts.append((key, id(hook), hook))
            self.opaque = True

    def value(self, value: Any, depth: int = 0) -> None:
        """A setting: plain values as they are, containers by their contents, other things by their identity."""
        if isinstance(value, ATOMS):
            self.parts.append(value)
        elif isinstance(value, Tensor):
            self.parts.append((type(value), value.dtype, value.device, value.shape))
        elif isinstance(value, nn.Module):
            self.parts.append(weakref.ref(value))
        elif isinstance(value, type) or callable(value):
            self.parts.append((id(value), value))
            self.opaque |= not _known(value)
        elif id(value) in self._seen:
            return
        elif depth < DEEPEST and (contents := _contents(value)) is not None:
            self._seen.add(id(value))
            for key, item in contents:
                self.parts.append(key if isinstance(key, ATOMS) else id(key))
                self.value(item, depth + 1)
        else:
            self.parts.append(id(value))
            self.opaque |= not _known(type(value))

    def _class(self, kind: type) -> None:
        self._classes.add(kind)
        for parent in kind.__mro__:
            if parent is nn.Module:
                break
            self.parts.append((parent, *map(id, vars(parent).values())))
            self.opaque |= not _known(parent)
            if parent.__module__ in sys.modules and _known(parent):
                self.python_modules.add(parent.__module__)


def _contents(value: Any) -> Iterable[tuple[object, object]] | None:
    """What a container or configuration holds; ``None`` for objects of other types."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    if isinstance(value, set | frozenset):
        return enumerate(sorted(value, key=repr))
    if callable(getattr(value, "to_dict", None)):
        return list(vars(value).items())
    return None


def _known(thing: Any) -> bool:
    """True for what a known package defines."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return module.partition(".")[0] in KNOWN_PACKAGES | {"builtins", "collections", "functools", "weakref"}

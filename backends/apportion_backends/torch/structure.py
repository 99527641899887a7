"""A model's structure, at which each run looks, and the traits that were found for it.

Scores always come from the model as it is. Only the shortcuts that a model allows (rows that share a batch or a prefix)
are found out once, and hold as long as its structure does. A user's code may look at the places of tokens, and may
change in ways that nobody sees; a model that has some is said to be opaque.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from apportion_backends.torch.checksum import ATOMS, BOOKKEEPING, OWN_OF_TORCH
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.guard import Doubt
from apportion_backends.torch.probe import probe, still_holds
from apportion_backends.torch.user_code import is_known, own_forward, user_hooks

__all__ = ["Findings", "ModelState", "StructureLog", "observe"]

REMEMBERED = 8
"""Structures whose traits are remembered, so that switching between adapters probes each of them once."""
OWN_CODE = "the model has code of your own ({}), which may depend on token positions; rows were not packed"
DEEPEST = 4
"""Levels of nested containers that are looked into."""
PLAIN = frozenset({bool, int, float, str, type(None)})
"""Types of most settings."""
SHOWN = PLAIN | {type}
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model's structure at one moment. Two states are equal if nothing was seen to change.

    Attributes:
        parts: modules, their classes, hooks, settings, and the shapes of their tensors.
        opaque: the first piece of a user's code that was found in it, such as "a hook on model.norm"; empty if none.
        versions: number of in-place changes of each tensor, as PyTorch counts them.
    """

    parts: tuple[object, ...]
    opaque: str
    versions: int

    @property
    def settings(self) -> str:
        """Classes and plain settings, the same in every process, for fingerprints."""
        plain = [part.__qualname__ if isinstance(part, type) else part for part in self.parts if type(part) in SHOWN]
        return repr(plain)


def observe(model: nn.Module) -> ModelState:
    """Look at a model's structure; takes a few milliseconds."""
    look = _Look()
    look.module("", model)
    for name in sorted(look.python_modules):
        look.parts.append((name, *map(id, vars(sys.modules[name]).values())))
    look._name = "all modules"
    for hooks in GLOBAL_HOOKS:
        look.hooks(getattr(nn.modules.module, hooks, {}).items())
    chosen = getattr(getattr(model, "config", None), "_attn_implementation", None)
    look.parts.append((chosen, id(ALL_ATTENTION_FUNCTIONS.get(chosen))))
    return ModelState(tuple(look.parts), look.opaque, look.versions)


class _Look:
    """One pass over a model."""

    def __init__(self) -> None:
        self.parts: list[object] = []
        self.opaque = ""
        self._name = ""
        self.versions = 0
        self.python_modules: set[str] = set()
        self._classes: set[type] = set()
        self._seen: set[int] = set()

    def module(self, name: str, module: nn.Module) -> None:
        # A reference, so that no other module at the same address passes for this one.
        self.parts.append(weakref.ref(module))
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        kind, self._name = type(module), name or type(module).__name__
        self.parts.append(kind)
        if kind not in self._classes:
            self._class(kind)
        if module._forward_hooks or module._forward_pre_hooks:
            self.hooks(user_hooks(module))
        if "forward" in vars(module) and own_forward(module):
            self._found("a replaced forward on")
        self.tensors(module._parameters)
        self.tensors(module._buffers)
        self.settings(vars(module))
        for key, child in module._modules.items():
            if child is not None:
                self.module(f"{name}.{key}" if name else key, child)

    def tensors(self, tensors: Mapping[str, Tensor | None]) -> None:
        for key, tensor in tensors.items():
            if tensor is not None:
                self.parts.append((key, type(tensor), tensor.dtype, tensor.device, tensor.shape))
                # Tensors made in inference mode do not count.
                self.versions += 0 if tensor.is_inference() else tensor._version

    def settings(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            if key in OWN_OF_TORCH or key in BOOKKEEPING:
                continue
            self.parts.append(key)
            if type(value) in PLAIN:
                self.parts.append(value)
            else:
                self.value(value)

    def hooks(self, hooks: Iterable[tuple[int, Any]]) -> None:
        for key, hook in hooks:
            self.parts.append((key, id(hook), hook))
            if not is_known(hook):
                self._found("a hook on")

    def value(self, value: Any, depth: int = 0) -> None:
        """A setting: plain values as they are, containers by their contents, other things by their identity."""
        if isinstance(value, ATOMS):
            self.parts.append(value)
        elif isinstance(value, Tensor):
            self.parts.append((type(value), value.dtype, value.device, value.shape))
        elif isinstance(value, nn.Module):
            self.module(f"{self._name} (held in an attribute)", value)
        elif isinstance(value, type) or callable(value):
            self.parts.append((id(value), value))
            self._unless_known(value)
        elif id(value) in self._seen:
            return
        elif depth < DEEPEST and (contents := _contents(value)) is not None:
            self._seen.add(id(value))
            for key, item in contents:
                self.parts.append(key if isinstance(key, ATOMS) else id(key))
                self.value(item, depth + 1)
        else:
            self.parts.append(id(value))
            self._unless_known(type(value))

    def _found(self, what: str) -> None:
        self.opaque = self.opaque or f"{what} {self._name}"
        self.parts.append(what)

    def _unless_known(self, thing: object) -> None:
        if not is_known(thing):
            self._found(f"{getattr(thing, '__qualname__', type(thing).__qualname__)} in")

    def _class(self, kind: type) -> None:
        self._classes.add(kind)
        for parent in kind.__mro__:
            if parent is nn.Module:
                break
            self.parts.append((parent, *map(id, vars(parent).values())))
            self._unless_known(parent)
            for function in vars(parent).values():
                if isinstance(function, FunctionType) and not is_known(function):
                    self._found(f"{function.__qualname__} in")
            if parent.__module__ in sys.modules and is_known(parent):
                self.python_modules.add(parent.__module__)


def _contents(value: Any) -> Iterable[tuple[object, object]] | None:
    """Contents of a container or configuration; ``None`` for objects of other types."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    if isinstance(value, set | frozenset):
        return enumerate(sorted(value, key=repr))
    if type(value).__module__ == "accelerate.hooks":
        return enumerate(getattr(value, "hooks", ()))  # a sequence may hold one of a user
    if callable(getattr(value, "to_dict", None)):
        return list(vars(value).items())
    return None


@dataclass(frozen=True, slots=True)
class Findings:
    """Properties of a model as it is.

    Attributes:
        traits: the shortcuts that it allows.
        doubt: frequency of checks against rows read alone.
        notes: sentences for results.
    """

    traits: Traits
    doubt: Doubt
    notes: tuple[str, ...]

    @classmethod
    def of(cls, traits: Traits, state: ModelState) -> Findings:
        """Findings for a structure with these traits."""
        if not state.opaque:
            return cls(traits, "none", traits.notes())
        return cls(traits.without_places(), "always", (*traits.notes(), OWN_CODE.format(state.opaque)))


class StructureLog:
    """Findings on a model by its structure.

    Args:
        model: the model, which was just probed.
        traits: findings of the probe.
        find: probes the model when its structure has changed; ``None`` for the probe of rows of text.
        holds: checks that a model whose weights have changed still has its traits.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        traits: Traits,
        *,
        find: Callable[[PreTrainedModel], Traits] | None = None,
        holds: Callable[[PreTrainedModel, Traits], bool] = still_holds,
    ) -> None:
        self._find, self._holds = find, holds
        state = observe(model)
        self._known = [(state, Findings.of(traits, state))]
        self._last: ModelState | None = None
        self._versions = state.versions

    @property
    def settings(self) -> str:
        """Classes and plain settings of the model at the last look."""
        return self._last.settings if self._last is not None else ""

    def look(self, model: PreTrainedModel) -> tuple[Findings, bool]:
        """Findings on the model as it is, and whether its structure has changed since the last look.

        Raises:
            ModelError: a change has made the model unfit for scoring.
        """
        state = observe(model)
        trained = self._versions != state.versions
        entry = next((one for one in reversed(self._known) if one[0].parts == state.parts), None)
        if entry is not None and trained and not self._holds(model, entry[1].traits):
            self._known.remove(entry)
            entry = None
        if entry is None:
            traits = (self._find or probe)(model)
            # Some models set attributes in their first forward pass.
            state = observe(model)
            entry = state, Findings.of(traits, state)
            self._known = [*self._known[1 - REMEMBERED :], entry]
        known, found = entry
        changed = known is not self._last
        self._last, self._versions = known, state.versions
        return (replace(found, doubt="once") if trained and found.doubt == "none" else found), changed

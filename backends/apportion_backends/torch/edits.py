"""Edits of what a model's modules read and return, by forward hooks that are removed whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from apportion.errors import InputError, listing, suggestion
from apportion.protocols.inside import Edits

__all__ = ["HOOKS_LOCK", "Here", "editing", "named_modules", "same_hooks"]

INSTALLED = "_output_capturing_hooks_installed"
"""Attribute that ``transformers.utils.output_capturing`` sets on models with its hooks."""

HOOKS_LOCK = threading.RLock()
"""Lock that is held while a model has temporary hooks, so that no thread removes those of another one."""


class Here(threading.local):
    """True in threads that compute the forward pass whose edits these are; other threads may score with the model."""

    active = False

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Context in which this thread computes the forward pass, or a part of it again."""
        before, self.active = self.active, True
        try:
            yield
        finally:
            self.active = before


def named_modules(model: nn.Module) -> Mapping[str, nn.Module]:
    """The modules of a model by name, without the model itself."""
    return {name: module for name, module in model.named_modules() if name}


@contextmanager
def editing(model: nn.Module, edits: Edits, here: Here) -> Iterator[Callable[[], None]]:
    """Context in which edits are applied to passes of the threads that are ``here``.

    Yields:
        A function that checks, after the forward pass, that every named module was called and has a tensor.

    Raises:
        InputError: the model does not have a module that is named.
    """
    if not edits:
        yield lambda: None
        return
    known = named_modules(model)
    _check_names(known, (*edits.outputs, *edits.inputs))
    reached: dict[str, bool] = {}
    with HOOKS_LOCK, ExitStack() as hooks:
        for name in {**edits.inputs, **edits.outputs}:
            module = known[name]
            if name in edits.inputs:
                hooks.enter_context(_input_hook(module, name, edits.inputs[name], here, reached))
            if name in edits.outputs:
                hooks.enter_context(_output_hook(module, name, edits.outputs[name], here, reached))
        yield lambda: _check_reached(model, (*edits.outputs, *edits.inputs), reached)


@contextmanager
def same_hooks(model: nn.Module) -> Iterator[None]:
    """Remove the hooks that transformers leaves on a model after it has returned hidden states."""
    with HOOKS_LOCK:
        before = [(module, list(module._forward_hooks), INSTALLED in vars(module)) for module in model.modules()]
        try:
            yield
        finally:
            for module, hooks, installed in before:
                for key in [key for key in module._forward_hooks if key not in hooks]:
                    del module._forward_hooks[key]
                if not installed and INSTALLED in vars(module):
                    delattr(module, INSTALLED)


def _check_names(known: Mapping[str, nn.Module], names: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise InputError(
                f"The model has no module {name!r}. {suggestion(name, known)}Its modules: {listing(known, limit=12)}."
            )


def _check_reached(model: nn.Module, names: Iterable[str], reached: Mapping[str, bool]) -> None:
    """Refuse modules without a tensor.

    Args:
        model: the model.
        names: names of modules.
        reached: true for each that had a tensor when it was called, false for each that had none.

    Raises:
        InputError: one of them was not called, or had no tensor.
    """
    ask = getattr(model, "get_output_embeddings", None)
    head = ask() if callable(ask) else None
    for name in names:
        if reached.get(name):
            continue
        why, advice = "it is not called in a forward pass", "Name modules inside it, or others"
        if name in reached:
            why, advice = "it reads or returns something else", "Name modules inside it"
        elif head is not None and model.get_submodule(name) is head:
            why, advice = "logits are computed from its weights, without a call", "Name the module before it"
        raise InputError(f"The module {name!r} gives no tensor: {why}. {advice}.")


@contextmanager
def _output_hook(
    module: nn.Module,
    name: str,
    edit: Callable[[nn.Module, Tensor | None, Tensor], Tensor],
    here: Here,
    reached: dict[str, bool],
) -> Iterator[None]:
    def apply(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not here.active:
            return None
        several = isinstance(output, tuple) and output
        first = output[0] if several else output
        reached[name] = isinstance(first, Tensor)
        if not isinstance(first, Tensor):
            return None
        read = _first_tensor(args, kwargs)
        new = _checked(name, edit(module, None if read is None else read[1], first), first)
        return (new, *output[1:]) if several else new

    handle = module.register_forward_hook(apply, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _input_hook(
    module: nn.Module, name: str, edit: Callable[[nn.Module, Tensor], Tensor], here: Here, reached: dict[str, bool]
) -> Iterator[None]:
    def apply(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not here.active:
            return None
        found = _first_tensor(args, kwargs)
        reached[name] = found is not None
        if found is None:
            return None
        where, first = found
        new = _checked(name, edit(module, first), first)
        if isinstance(where, int):
            return (*args[:where], new, *args[where + 1 :]), kwargs
        return args, {**kwargs, where: new}

    handle = module.register_forward_pre_hook(apply, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int | str, Tensor] | None:
    """The first tensor that a module reads, and where it is; states come before masks and positions."""
    states = kwargs.get("hidden_states")
    if isinstance(states, Tensor):
        return "hidden_states", states
    places: Iterable[tuple[int | str, Any]] = (*enumerate(args), *kwargs.items())
    return next(((where, value) for where, value in places if isinstance(value, Tensor)), None)


def _checked(name: str, new: object, old: Tensor) -> Tensor:
    if not isinstance(new, Tensor) or new.shape != old.shape:
        shape = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
        raise InputError(f"The edit of the module {name!r} returned {shape} instead of a tensor of {list(old.shape)}.")
    return new.to(old.device, old.dtype)

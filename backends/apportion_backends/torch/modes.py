"""Temporary modes of a model while it is scored."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

from apportion_backends.torch.inputs import input_device

__all__ = ["evaluating", "scoring_mode"]


@contextmanager
def scoring_mode(model: nn.Module) -> Iterator[None]:
    """Context without gradients, dropout and autocast; a model that was training is training again afterwards."""
    with evaluating(model), torch.inference_mode():
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Context without dropout and autocast; a model that was training is training again afterwards.

    Several threads may hold a model, or parts of it; the last one gives it back.
    """
    holder, modules = object(), list(model.modules())
    try:
        _HELD.take(modules, holder)
        with torch.autocast(input_device(model).type, enabled=False):
            yield
    finally:
        _to_the_end(lambda: _HELD.give_back(modules, holder))


def _to_the_end(work: Callable[[], None]) -> None:
    """Do work that may be done again, until no interrupt comes in between; raise the interrupt then."""
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            work()
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


class _Held:
    """Training modules that are held in evaluation mode, with their holders."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holders: WeakKeyDictionary[nn.Module, set[object]] = WeakKeyDictionary()

    def take(self, modules: Iterable[nn.Module], holder: object) -> None:
        """Hold those that are training, and those that somebody else holds."""
        with self._lock:
            for module in modules:
                if module.training or module in self._holders:
                    self._holders.setdefault(module, set()).add(holder)
                    module.training = False

    def give_back(self, modules: Iterable[nn.Module], holder: object) -> None:
        """Release them; those that nobody else holds are training again."""
        with self._lock:
            for module in modules:
                holders = self._holders.get(module)
                if holders is None:
                    continue
                holders.discard(holder)
                if not holders:
                    module.training = True
                    del self._holders[module]


_HELD = _Held()
"""Modules held by any session, because two sessions may score with one model."""

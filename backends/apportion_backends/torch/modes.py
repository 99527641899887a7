"""Modes that a model is held in while it is scored, and given back from."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

from apportion_backends.torch.inputs import input_device

__all__ = ["evaluating", "scoring_mode"]


@contextmanager
def scoring_mode(model: nn.Module) -> Iterator[None]:
    """Without gradients, dropout and autocast; a model that was training is training again afterwards."""
    with evaluating(model), torch.inference_mode():
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and autocast, gradients as they are; a model that was training is training again afterwards.

    Several threads may hold a model, or parts of it; the last one gives it back.
    """
    held = _HELD.take(model.modules())
    try:
        with torch.autocast(input_device(model).type, enabled=False):
            yield
    finally:
        _HELD.give_back(held)


class _Held:
    """Training modules that are held in evaluation mode, with the number of holders."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()

    def take(self, modules: Iterable[nn.Module]) -> list[nn.Module]:
        """Hold those that are training, and those that somebody else holds."""
        with self._lock:
            held = [module for module in modules if module.training or module in self._holders]
            for module in held:
                self._holders[module] = self._holders.get(module, 0) + 1
                module.training = False
        return held

    def give_back(self, held: Iterable[nn.Module]) -> None:
        """Release them; those that nobody else holds are training again."""
        with self._lock:
            for module in held:
                self._holders[module] -= 1
                if not self._holders[module]:
                    del self._holders[module]
                    module.training = True


_HELD = _Held()
"""Shared by all sessions, because two of them may score with one model."""

"""What the fuzzer puts into models. It stands apart, so that a model's checksum does not reach into the tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from checked import with_states

__all__ = ["Adapted", "Around", "Scaled", "times"]


def times(forward: Any, factor: float) -> Any:
    """A forward whose states are scaled."""

    def scaled(*args: Any, **kwargs: Any) -> Any:
        return with_states(forward(*args, **kwargs), lambda states: states * factor)

    return scaled


class Scaled:
    """A hook with a state: it scales what stands at some places of a module's output."""

    def __init__(self, factor: float, place: slice) -> None:
        self.factor, self.place = factor, place

    def __call__(self, module: nn.Module, args: object, output: Any) -> Any:
        def scaled(states: torch.Tensor) -> torch.Tensor:
            states = states.clone()
            states[..., self.place, :] *= self.factor
            return states

        return with_states(output, scaled)


class Around(nn.Module):
    """A module around a layer, which has the layer's attributes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class Adapted(Around):
    """Adds one of two adapters to a layer, as packages for fine-tuning do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.active = 0
        self.adapters = nn.ParameterList([torch.tensor(0.7), torch.tensor(1.2)])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.inner(*args, **kwargs)
        return found * self.adapters[self.active].to(found.dtype)

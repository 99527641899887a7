"""A random generator that knows whether it was used."""

from __future__ import annotations

import torch

__all__ = ["WatchedGenerator"]


class WatchedGenerator(torch.Generator):
    """A generator on the CPU that knows whether numbers were drawn from it or its seed was read.

    A method or metric that uses it samples, so a result without standard errors is not exact.

    Args:
        seed: its seed.
    """

    def __new__(cls, seed: int) -> WatchedGenerator:
        """Make a generator on the CPU; the argument of ``torch.Generator`` would be a device."""
        return super().__new__(cls)

    def __init__(self, seed: int) -> None:
        self.manual_seed(seed)
        self._start = self.get_state()
        self._read = False

    def initial_seed(self) -> int:
        """Return the seed, with which another generator may be seeded."""
        self._read = True
        return super().initial_seed()

    @property
    def used(self) -> bool:
        """True if its state has changed, or its seed was read."""
        return self._read or not torch.equal(self._start, self.get_state())

"""Tile sizes for the product of hidden states and the head's weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from apportion_backends.triton.runtime import interpreting, power_of_two

__all__ = ["Tiles"]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Sizes of tiles and programs; all but ``slices`` are powers of two, 16 or more.

    Attributes:
        rows: hidden states of a tile.
        vocabulary: tokens of a tile.
        inner: channels multiplied in one step.
        slices: parts of the vocabulary, each processed by its own program.
        warps: per program.
        stages: loads in flight.
    """

    rows: int
    vocabulary: int
    inner: int
    slices: int
    warps: int
    stages: int

    @classmethod
    def of(cls, rows: int, weight: Float[Tensor, "V D"], *, bare: bool = True) -> Tiles:
        """Tiles that fit into registers and shared memory of an H100 (most also of an A100).

        Few rows get more slices, so that there are enough programs to fill the device.

        Args:
            rows: number of hidden states.
            weight: weight of the head.
            bare: neither bias nor soft cap, which take registers.
        """
        vocabulary, width = weight.shape
        if interpreting():
            # Every step is a NumPy call, so few and large ones; still more than one slice and one step.
            return cls(
                power_of_two(max(16, min(rows, 64))), power_of_two(max(16, min(vocabulary // 3, 2048))),
                power_of_two(max(16, min(width, 128))), 2, 4, 1,
            )  # fmt: skip
        block = 128 if rows > 64 else power_of_two(max(16, rows))
        blocks = math.ceil(rows / block)
        slices = max(1, min(64, 8 if blocks > 64 else math.ceil(512 / blocks), math.ceil(vocabulary / 256)))
        half = weight.dtype.itemsize == 2
        wide = 256 if bare and half and block == 128 else 128
        return cls(block, wide, 64 if half else 32, slices, 8 if block >= 64 else 4, 3 if half else 2)

    def for_gradient(self) -> Tiles:
        """Narrower tiles, which leave registers for the derivatives."""
        return replace(self, vocabulary=min(self.vocabulary, 64))

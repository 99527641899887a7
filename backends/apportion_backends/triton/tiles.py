"""How the product of hidden states and the head's weights is cut into programs and tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from apportion_backends.triton.runtime import interpreting, power_of_two

__all__ = ["Tiles"]


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the work is cut; all but ``slices`` are powers of two, 16 or more.

    Attributes:
        rows: of a block.
        vocabulary: tokens of a tile.
        inner: channels that one step multiplies.
        slices: of the vocabulary, each a program of its own.
        warps: of a program.
        stages: of loads that run ahead.
    """

    rows: int
    vocabulary: int
    inner: int
    slices: int
    warps: int
    stages: int

    @classmethod
    def of(cls, rows: int, weight: Float[Tensor, "V D"], *, plain: bool = True) -> Tiles:
        """A choice for these sizes, by what fits into registers and shared memory of an H100 (and, smaller, an A100).

        Few rows get more slices, so that there are programs enough to fill the device.

        Args:
            rows: of hidden states.
            weight: of the head.
            plain: only log-probabilities are asked for; all else takes registers.
        """
        vocabulary, width = weight.shape
        if interpreting():
            # Every step is a call of NumPy: few, large ones. Slices and steps are still more than one each.
            return cls(
                power_of_two(max(16, min(rows, 64))), power_of_two(max(16, min(vocabulary // 3, 2048))),
                power_of_two(max(16, min(width, 128))), 2, 4, 1,
            )  # fmt: skip
        block = 128 if rows > 64 else power_of_two(max(16, rows))
        blocks = math.ceil(rows / block)
        slices = max(1, min(64, 8 if blocks > 64 else math.ceil(512 / blocks), math.ceil(vocabulary / 256)))
        half = weight.dtype.itemsize == 2
        wide = 256 if plain and half and block == 128 else 128 if plain or not half else 64
        return cls(block, wide, 64 if half else 32, slices, 8 if block >= 64 else 4, 3 if half else 2)

"""Pictures, and masks of their absent pixels, for contracts and trials. Made of numbers from fixed seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, UInt8

__all__ = ["SMALL", "absent_pixels", "sample_pictures"]

SIZES: Mapping[str, tuple[int, int]] = {
    "square": (64, 64),
    "wide": (48, 96),
    "tall": (96, 48),
    "small": (8, 8),
    "line": (1, 24),
    "one colour": (64, 64),
}
"""Height and width of each picture."""
SMALL = frozenset({"small", "line"})
"""Pictures with fewer pixels than some segmenters have regions."""
BLOCK = 8
"""Pixels of a block of colour, in each direction."""


def sample_pictures() -> dict[str, UInt8[np.ndarray, "H W 3"]]:
    """Pictures of several sizes, new at every call: blocks of colour with a little noise, and one without either."""
    found = {}
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(30, 225, (height // BLOCK + 1, width // BLOCK + 1, 3))
        noise = rng.integers(-20, 21, (height, width, 3))
        found[name] = (blocks[np.arange(height) // BLOCK][:, np.arange(width) // BLOCK] + noise).astype(np.uint8)
    found["one colour"][:] = (90, 140, 200)
    return found


def absent_pixels(height: int, width: int) -> dict[str, Bool[np.ndarray, "H W"]]:
    """Masks of absent pixels: a rectangle, scattered pixels, a single one, all of them, and none."""
    rectangle, single = (np.zeros((height, width), bool) for _ in range(2))
    rectangle[: max(1, height // 2), width // 4 : width // 2] = True
    single[height // 2, width // 2] = True
    return {
        "a rectangle": rectangle,
        "scattered pixels": np.random.default_rng(height + width).random((height, width)) < 0.3,
        "a single pixel": single,
        "all pixels": np.ones((height, width), bool),
        "no pixel": np.zeros((height, width), bool),
    }

"""Scores of a model's modules in a result, and the places of modules in the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

__all__ = ["ModulePlace", "module_values", "place_of", "short_parts"]

NUMBER = "*"
"""Stands for the number of the layer in ``ModulePlace.part``."""


@dataclass(frozen=True, slots=True)
class ModulePlace:
    """The place of a module in a model.

    Attributes:
        name: name of the module, such as ``"model.layers.3.self_attn.q_proj"``.
        layer: number of its layer, the first number in its name; ``None`` if there is none.
        part: its name without this number, the same in all layers: ``"model.layers.*.self_attn.q_proj"``.
    """

    name: str
    layer: int | None
    part: str


def place_of(name: str) -> ModulePlace:
    """The place of a module, from its name."""
    words = name.split(".")
    at = next((i for i, word in enumerate(words) if word.isdecimal()), None)
    if at is None:
        return ModulePlace(name, None, name)
    return ModulePlace(name, int(words[at]), ".".join([*words[:at], NUMBER, *words[at + 1 :]]))


def short_parts(parts: Sequence[str]) -> dict[str, str]:
    """The shortest endings of names by which they can be told apart, in whole words: ``"q_proj"``."""
    found = {}
    for part in parts:
        words = part.split(".")
        others = [other.split(".") for other in parts if other != part]
        tails = (words[-size:] for size in range(1, len(words) + 1))
        found[part] = next(
            (".".join(tail) for tail in tails if tail != [NUMBER] and all(o[-len(tail) :] != tail for o in others)),
            part,
        )
    return found


def module_values(extras: Mapping[str, Any], token: int | None = None) -> Float64[np.ndarray, "M F"]:
    """Values of each module for the whole target, or for the target token at a position."""
    if token is None:
        return np.array(extras["module_values"], dtype=np.float64)
    return np.array(extras["module_token_values"], dtype=np.float64)[:, token]

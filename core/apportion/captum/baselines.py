"""Baselines that are drawn from a product of alternatives."""

from __future__ import annotations

import random
from typing import Any

from apportion.captum.refusals import require

__all__ = ["ProductBaselines"]


class ProductBaselines:
    """Draws a baseline for each slot of a template, with Python's ``random``.

    Args:
        baseline_values: the alternatives of each slot, as a list of lists, or a dict of lists by the slot's name. A
            tuple of names as a key groups slots: its alternatives are tuples, which are drawn together.

    Raises:
        AssertionError: a slot has no alternatives, or those of a group are not tuples of its size.
    """

    def __init__(self, baseline_values: list[list[Any]] | dict[str | tuple[str, ...], list[Any]]) -> None:
        self.dict_keys: list[str | tuple[str, ...]] = []
        if isinstance(baseline_values, dict):
            self.dict_keys, baseline_values = list(baseline_values), list(baseline_values.values())
        self.baseline_values = baseline_values
        for number, alternatives in enumerate(baseline_values):
            key = self.dict_keys[number] if self.dict_keys else number
            require(len(alternatives) > 0, f"there are no alternatives for {key!r}")
            if isinstance(key, tuple):
                for one in alternatives:
                    require(
                        isinstance(one, tuple | list) and len(one) == len(key),
                        f"each alternative for {key!r} must be a tuple of {len(key)}, not {one!r:.60}",
                    )

    def sample(self) -> list[Any] | dict[str, Any]:
        """Draw one alternative for each slot or group."""
        found = [random.choice(alternatives) for alternatives in self.baseline_values]
        if not self.dict_keys:
            return found
        slots: dict[str, Any] = {}
        for key, value in zip(self.dict_keys, found, strict=True):
            slots.update(zip(key, value, strict=True) if isinstance(key, tuple) else [(key, value)])
        return slots

    def __call__(self) -> list[Any] | dict[str, Any]:
        """Draw one alternative for each slot or group."""
        return self.sample()

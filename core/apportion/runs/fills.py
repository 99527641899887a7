"""One prompt with pictures under several fills of its absent regions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from apportion.errors import InputError, shown
from apportion.prompts.image_text import ImageText

__all__ = ["FILLS", "with_each_fill"]

FILLS = ("mean", "blur", "black", "white", "noise")
"""Fills that are compared if none are named."""


def with_each_fill(prompt: object, fills: object) -> list[ImageText]:
    """The prompt once with each fill.

    Raises:
        InputError: the prompt has no pictures, there are fewer than two fills, or one is given twice.
    """
    if not isinstance(prompt, ImageText):
        raise InputError(
            f"compare_fills is for prompts with pictures, ap.ImageText(…), and this is a {type(prompt).__name__}."
        )
    if prompt.segments is None:
        raise InputError("With segments=None no region is ever absent, so fills make no difference.")
    if isinstance(fills, str) or not isinstance(fills, Iterable):
        raise InputError(f"fills={shown(fills)} must be a list, such as ['mean', 'blur'].")
    named = list(fills)
    if len(named) < 2:
        raise InputError(f"Two fills or more are compared; fills={shown(named)}.")
    for i, one in enumerate(named):
        if isinstance(one, str) and one in [other for other in named[:i] if isinstance(other, str)]:
            raise InputError(f"The fill {one!r} is given twice.")
    return [replace(prompt, fill=one) for one in named]

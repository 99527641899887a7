"""Target functions made from plain functions of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, counted, shown
from apportion.functions import failures_of, wrong_answer
from apportion.protocols.targets import Needs, Scores, Target

__all__ = ["TextFunction", "TextValue", "as_numbers"]

TextFunction = Callable[[Sequence[str], str], "Sequence[float] | np.ndarray | Tensor"]
"""A function of S texts that the model wrote, and the text to compare with; returns S numbers."""


class TextValue:
    """A target function made from a plain function of the texts that the model writes.

    Such a function may be anything: a judge, a metric, a classifier. It is asked once about each distinct text, about
    as many as there are at a time, and should give the same text the same value.

    Args:
        function: maps a list of S texts, and the text to compare with (the target), to S numbers.
        unit: unit of the numbers, for tables and plots.
        label: what they measure, as a noun phrase without an article, such as ``"agreement with the target"``.

    Raises:
        InputError: ``function`` is not a function, or ``unit`` or ``label`` is not a string.
    """

    needs = Needs.TEXT

    def __init__(self, function: TextFunction, *, unit: str = "", label: str = "") -> None:
        if not callable(function) or isinstance(function, type):
            raise InputError(f"TextValue takes a function of texts and a target, not {shown(function)}.")
        for name, given in (("unit", unit), ("label", label)):
            if not isinstance(given, str):
                raise InputError(f"{name}={shown(given)} must be a string.")
        self._function = function
        self.name = str(getattr(function, "__name__", type(function).__name__))
        self.unit = unit or self.name
        self.label = label

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S 1"]:
        """Values of S texts.

        Raises:
            InputError: the function failed, or returned something else than a number for each text.
        """
        assert scores.texts is not None
        texts = list(scores.texts)
        given = f"{counted(len(texts), 'text')}, the first of them {shown(texts[0])}"
        with failures_of(self._function, "target_fn", lambda: given):
            found = self._function(texts, target.text)
        numbers = as_numbers(found)
        if numbers is None or numbers.shape not in {(len(texts),), (len(texts), 1)}:
            wanted = f"a list of {counted(len(texts), 'number')}, one for each text"
            raise wrong_answer(self._function, "target_fn", wanted, found)
        return numbers.reshape(-1, 1)


def as_numbers(found: object) -> Float[Tensor, ...] | None:
    """Numbers that a function of the user's returned, float64 on the CPU; ``None`` if they are something else."""
    try:
        plain = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found)
    except ValueError:  # rows of different lengths
        return None
    return torch.as_tensor(plain.astype(np.float64)) if plain.dtype.kind in "biuf" else None

"""Explainers of the model that a facade's method was made with."""

from __future__ import annotations

import warnings
from typing import Any

from apportion.captum import prompt
from apportion.errors import ApportionError
from apportion.explainer import Explainer

__all__ = ["Explainers"]


class Explainers:
    """Opens a model when it is first needed.

    Args:
        model: the model.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._opened: dict[bool, Explainer | None] = {}

    def get(self, *, show_progress: bool = False) -> Explainer | None:
        """The explainer; ``None``, with a warning, if apportion does not open such models."""
        if show_progress not in self._opened:
            try:
                self._opened[show_progress] = Explainer(
                    (self._model, self._tokenizer), plugins=[prompt], progress="always" if show_progress else "never"
                )
            except ApportionError as error:
                self._opened[show_progress] = None
                warnings.warn(
                    f"{type(self._model).__name__} is scored one prompt at a time, which is slow: {error!s:.300}",
                    stacklevel=2,
                )
        return self._opened[show_progress]

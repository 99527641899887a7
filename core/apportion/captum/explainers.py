"""Explainers of the model that a facade's method was made with."""

from __future__ import annotations

import warnings
from typing import Any

from apportion.captum import prompt
from apportion.captum.image_prompt import FunctionProcessor
from apportion.errors import ApportionError, CapabilityError
from apportion.explainer import Explainer
from apportion.protocols.backend import Capability

__all__ = ["Explainers"]


class Explainers:
    """Opens a model when it is first needed.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        opened: an explainer of the model that is open already.
    """

    def __init__(self, model: Any, tokenizer: Any, opened: Explainer | None = None) -> None:
        self._model, self._tokenizer, self._given = model, tokenizer, opened
        self._opened: dict[tuple[bool, int | None], Explainer | None] = {}

    def get(self, *, show_progress: bool = False, processor: FunctionProcessor | None = None) -> Explainer | None:
        """The explainer; ``None``, with a warning, if apportion does not open such models.

        Args:
            show_progress: show a progress bar.
            processor: makes the model's arguments of pictures.
        """
        if self._given is not None:
            return self._given
        key = (show_progress, None if processor is None else id(processor))
        if key not in self._opened:
            try:
                self._opened[key] = self._open(show_progress, processor)
            except ApportionError as error:
                self._opened[key] = None
                warnings.warn(
                    f"{type(self._model).__name__} is scored one prompt at a time, which is slow: {error!s:.300}",
                    stacklevel=2,
                )
        return self._opened[key]

    def _open(self, show_progress: bool, processor: FunctionProcessor | None) -> Explainer:
        """Open the model.

        Raises:
            ApportionError: such models are not opened, or read no pictures.
        """
        progress = "always" if show_progress else "never"
        pair = (self._model, self._tokenizer)
        made = Explainer(pair, processor=processor, plugins=[prompt], progress=progress)
        if processor is not None and Capability.IMAGES not in made.session.capabilities:
            raise CapabilityError(f"it cannot read pictures in batches: {getattr(made.session, 'media_refusal', '')}")
        return made

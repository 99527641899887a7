"""What a model reads of pictures: the output of its processor for them, without the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from apportion.protocols.row import Media
from apportion.rendering.picture_writer import placeholder, processed
from apportion_backends.torch.pictures.token_types import IDS, TokenTypes

__all__ = ["PictureProcessor", "VisionInputs", "processor_settings"]

VisionInputs = Mapping[str, Any]
"""Arguments of the model, such as ``pixel_values``."""


class PictureProcessor:
    """Turns pictures into what the model reads of them.

    Args:
        processor: the model's processor.
        types: the numbers that it returns for each token.
        dtype: dtype of the model.
        device: device of the model's inputs.
    """

    def __init__(self, processor: Any, types: TokenTypes, dtype: torch.dtype, device: torch.device) -> None:
        self._processor, self._of_tokens = processor, frozenset((*IDS, *types.names))
        self._dtype, self._device = dtype, device
        self._placeholder = placeholder(processor)

    def __call__(self, pictures: Sequence[Media]) -> VisionInputs:
        """The model's arguments for the pictures of one row, in order."""
        contents = [one.content() for one in pictures]
        inputs = processed(self._processor, self._placeholder * len(contents), contents, return_tensors="pt")
        return {name: self._placed(value) for name, value in inputs.items() if name not in self._of_tokens}

    def _placed(self, value: Any) -> Any:
        """A value on the model's device; numbers with fractions in its dtype."""
        if not isinstance(value, Tensor):
            return value
        return value.to(self._device, self._dtype if value.is_floating_point() else None)


def processor_settings(processor: Any) -> str:
    """The settings that decide what a model reads of pictures, for fingerprints."""
    settings: str = processor.to_json_string()
    return settings

"""The inputs of a model for pictures: the output of its processor for them, without the tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apportion.protocols.row import Media
from apportion.rendering.picture_writer import as_image, placeholder, processed
from apportion_backends.torch.comparing import REFUSALS
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
        self._direct: dict[tuple[int, ...], _Direct | None] = {}

    def __call__(self, pictures: Sequence[Media]) -> VisionInputs:
        """The model's arguments for the pictures of one row, in order."""
        contents = [one.content() for one in pictures]
        shape = tuple(getattr(contents[0], "shape", ())) if len(contents) == 1 else ()
        if not shape:
            return self._placed(self._whole(self._processor, contents))
        if shape not in self._direct:
            spying = copy.copy(self._processor)
            spying.image_processor = spy = _Spy(self._processor.image_processor)
            whole = self._whole(spying, contents)
            self._direct[shape] = _Direct.proven(spy, whole, as_image(contents[0]))
            return self._placed(whole)
        direct = self._direct[shape]
        return self._placed(self._whole(self._processor, contents) if direct is None else direct(as_image(contents[0])))

    def _whole(self, processor: Any, contents: Sequence[Any]) -> dict[str, Any]:
        """The output of the processor for pictures, with the text that it needs, without what is about tokens."""
        inputs = processed(processor, self._placeholder * len(contents), contents, return_tensors="pt")
        return {name: value for name, value in inputs.items() if name not in self._of_tokens}

    def _placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs on the model's device; numbers with fractions in its dtype."""
        found = dict(inputs)
        for name, value in inputs.items():
            if isinstance(value, Tensor):
                found[name] = value.to(self._device, self._dtype if value.is_floating_point() else None)
        return found


class _Spy:
    """An image processor that keeps how it was called."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.nested = False
        self.options: dict[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, images: Any, **options: Any) -> Any:
        self.nested, self.options = isinstance(images[0], list), options
        return self.inner(images, **options)


@dataclass(frozen=True)
class _Direct:
    """An image processor, called as the whole processor calls it, but without a text: in a quarter of the time."""

    inner: Any
    nested: bool
    options: Mapping[str, Any]
    names: tuple[str, ...]

    @classmethod
    def proven(cls, spy: _Spy, whole: Mapping[str, Any], content: Any) -> _Direct | None:
        """The way that a whole processor went; ``None`` if it does not give the same."""
        if spy.options is None or not all(isinstance(value, Tensor) for value in whole.values()):
            return None
        made = cls(spy.inner, spy.nested, spy.options, tuple(whole))
        try:
            found = made(content)
        except REFUSALS:
            return None
        same = (found[name].dtype == whole[name].dtype and torch.equal(found[name], whole[name]) for name in whole)
        return made if all(same) else None

    def __call__(self, content: Any) -> dict[str, Any]:
        """Inputs of the model for one picture."""
        found = self.inner([[content]] if self.nested else [content], **self.options)
        return {name: found[name] for name in self.names}


def processor_settings(processor: Any) -> str:
    """The settings that decide what a model reads of pictures, for fingerprints."""
    settings: str = processor.to_json_string()
    return settings

"""A user's function from a picture to model arguments, as a processor of ``Explainer``."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["FunctionProcessor"]

ROOM = 256 * 2**20
"""Bytes of arguments that are kept, so that a picture that is rendered and then scored is processed once."""


class FunctionProcessor:
    """The processor of pictures that a function is, with the prompt that it writes.

    Args:
        function: makes the model's arguments of a PIL image.
        tokenizer: the model's tokenizer.
        model: the model, whose configuration names the tokens of pictures.
    """

    image_token = ""
    chat_template = None

    def __init__(self, function: Callable[[Any], Any], tokenizer: Any, model: Any) -> None:
        self.tokenizer, self.image_processor = tokenizer, function
        config = getattr(model, "config", None)
        named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
        self.image_token_ids = [one for one in named if isinstance(one, int)][:1]
        self._function = function
        self._known: OrderedDict[bytes, Mapping[str, Any]] = OrderedDict()

    def to_json_string(self) -> str:
        """The identity of the function, for what is remembered of the model."""
        return f"function {id(self._function)}"

    def __call__(
        self, images: Sequence[Sequence[np.ndarray]], text: object = None, return_tensors: object = None, **_: object
    ) -> Mapping[str, Any]:
        """Arguments of the model for one picture, without regard to the text: the function knows the prompt.

        Raises:
            ValueError: there is more than one picture, or the function returns no arguments.
        """
        (row,) = images
        if len(row) != 1:
            raise ValueError("a function from a picture to arguments takes one picture")
        found = self.arguments(row[0])
        return found if return_tensors is not None else {**found, "input_ids": found["input_ids"].tolist()}

    def arguments(self, pixels: np.ndarray) -> Mapping[str, Any]:
        """Arguments of the model for a picture.

        Raises:
            ValueError: the function returns something else than a mapping with ``"input_ids"`` of one row.
        """
        key = hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16).digest()
        found = self._known.get(key)
        if found is None:
            from PIL import Image

            found = self._function(Image.fromarray(pixels))
            ids = found.get("input_ids") if isinstance(found, Mapping) else None
            if not isinstance(ids, Tensor) or ids.ndim != 2 or len(ids) != 1:
                raise ValueError("the function returns no input_ids of the shape [1, L]")
            self._keep(key, found)
        return found

    def _keep(self, key: bytes, found: Mapping[str, Any]) -> None:
        self._known[key] = found
        while len(self._known) > 1 and sum(map(_bytes, self._known.values())) > ROOM:
            self._known.popitem(last=False)


def _bytes(arguments: Mapping[str, Any]) -> int:
    return sum(one.numel() * one.element_size() for one in arguments.values() if isinstance(one, Tensor))

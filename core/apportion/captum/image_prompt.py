"""A user's function from a picture to model arguments, as a processor of ``Explainer``."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["FunctionProcessor", "form_of"]

ROOM = 256 * 2**20
"""Bytes of arguments that are kept, so that a picture that is rendered and then scored is processed once."""


class FunctionProcessor:
    """The processor of pictures that a function is, with the prompt that it writes.

    Functions that return arguments of one form may take turns, so that the model is opened once for all of them.

    Args:
        function: makes the model's arguments of a PIL image.
        form: form of these arguments, see ``form_of``.
        tokenizer: the model's tokenizer.
        model: the model, whose configuration names the tokens of pictures.
    """

    image_token = ""
    chat_template = None

    def __init__(self, function: Callable[[Any], Any], form: str, tokenizer: Any, model: Any) -> None:
        self.tokenizer, self.image_processor = tokenizer, function
        config = getattr(model, "config", None)
        named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
        self.image_token_ids = [one for one in named if isinstance(one, int)][:1]
        self._form = form
        self.use(function)

    def use(self, function: Callable[[Any], Any]) -> None:
        """Call this function from now on, which returns arguments of the same form."""
        self._function = function
        self._known: OrderedDict[bytes, Mapping[str, Any]] = OrderedDict()
        self._bytes = 0

    def to_json_string(self) -> str:
        """The form of what the function returns, on which the way to read it depends; for what is remembered."""
        return self._form

    def __call__(
        self, images: Sequence[Sequence[Any]], text: object = None, return_tensors: object = None, **_: object
    ) -> Mapping[str, Any]:
        """Arguments of the model for one picture, without regard to the text: the function knows the prompt.

        Raises:
            ValueError: there is more than one picture, or the function returns no arguments.
        """
        (row,) = images
        if len(row) != 1:
            raise ValueError("a function from a picture to arguments takes one picture")
        found = self.arguments(np.asarray(row[0]))
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
        self._bytes += _bytes(found)
        while len(self._known) > 1 and self._bytes > ROOM:
            _, gone = self._known.popitem(last=False)
            self._bytes -= _bytes(gone)


def form_of(arguments: Mapping[str, Any]) -> str:
    """Names and types of a model's arguments, and the numbers of their dimensions."""
    forms = {name: (str(getattr(one, "dtype", type(one))), getattr(one, "ndim", 0)) for name, one in arguments.items()}
    return f"function of a picture that returns {sorted(forms.items())}"


def _bytes(arguments: Mapping[str, Any]) -> int:
    return sum(one.numel() * one.element_size() for one in arguments.values() if isinstance(one, Tensor))

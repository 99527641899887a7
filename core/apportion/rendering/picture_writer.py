"""Token ids of prompts with pictures, as a model's own processor writes them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.errors import InputError, counted

if TYPE_CHECKING:
    from jaxtyping import UInt8

__all__ = [
    "PictureWriter",
    "Pixels",
    "as_image",
    "image_token_ids",
    "placeholder",
    "processed",
    "special_tokens_in_chat",
]

Ids = tuple[int, ...]
Pixels = np.ndarray
"""A picture, ``UInt8[H, W, 3]``."""

AROUND = (("<|vision_start|>", "<|vision_end|>"),)
"""Tokens that stand around a placeholder in families whose processors leave them to the chat template."""
REFUSALS = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, KeyError, AssertionError)
"""Errors by which processors refuse a prompt."""


class PictureWriter:
    """Writes prompts that show the same pictures, each time with another text.

    The pictures go through the image processor once. The number of placeholder tokens depends on the sizes of pictures,
    and not on their contents, so that prompts with perturbed pictures have the same tokens.

    Args:
        processor: the model's processor.
        pictures: the pictures, in the order of their places.
        omitted: special tokens that the tokenizer appends to a text, and that are left out.
    """

    def __init__(self, processor: Any, pictures: Sequence[UInt8[Pixels, "H W 3"]], omitted: Ids = ()) -> None:
        self._pictures = [np.asarray(one) for one in pictures]
        self._omitted = omitted
        self.placeholder = placeholder(processor)
        self.processor = processor
        self._recorded = copy.copy(processor)
        self._recorded.image_processor = _Recorded(processor.image_processor)

    @property
    def chat_template(self) -> Any:
        """The template with which the processor writes conversations; ``None`` if it has none."""
        return getattr(self.processor, "chat_template", None)

    def in_chat(self, text: str) -> str:
        """A user's turn with all pictures and then a text, followed by the beginning of the answer."""
        content = [*({"type": "image"} for _ in self._pictures), {"type": "text", "text": text}]
        message = {"role": "user", "content": content}
        written: str = self.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        return written

    def before(self, text: str) -> str:
        """All pictures, followed by a text."""
        return f"{self._placed * len(self._pictures)}{text}"

    def count(self, text: str) -> int:
        """Number of placeholders in a text; 0 if the processor has none, and puts pictures into prompts itself."""
        return text.count(self.placeholder) if self.placeholder else 0

    def read(self, text: str, *, special_tokens: bool) -> Ids:
        """The token ids of a text with a placeholder for each picture.

        Raises:
            InputError: the number of placeholders is another one, or the processor refuses the text.
        """
        found = self.count(text)
        written = getattr(self.processor.tokenizer, "image_token", None)
        if isinstance(written, str) and written != self.placeholder and written in text:
            raise InputError(
                f"The prompt has {written}, which the processor writes itself, as often as a picture needs it. Write "
                f"{self.placeholder} in the place of each picture."
            )
        if self.placeholder and found != len(self._pictures):
            raise InputError(
                f"The prompt has {counted(found, 'placeholder')} ({self.placeholder}) for "
                f"{counted(len(self._pictures), 'picture')}. Write one placeholder for each picture, or none to have "
                "the pictures before the text."
            )
        ids = tuple(processed(self._recorded, text, self._pictures, special_tokens=special_tokens)["input_ids"][0])
        appended = special_tokens and self._omitted and ids[-len(self._omitted) :] == self._omitted
        return ids[: -len(self._omitted)] if appended else ids

    def read_chat(self, text: str) -> Ids:
        """The token ids of a conversation that the chat template has written; see ``read``.

        Raises:
            InputError: as ``read``.
        """
        return self.read(text, special_tokens=special_tokens_in_chat(self.processor.tokenizer, text))

    @property
    def _placed(self) -> str:
        """A placeholder with the tokens around it that the model has seen in training."""
        vocabulary = self.processor.tokenizer.get_vocab()
        for start, end in AROUND:
            if start in vocabulary and end in vocabulary:
                return f"{start}{self.placeholder}{end}"
        return self.placeholder


class _Recorded:
    """An image processor that processes its first pictures, and returns the same for all that follow."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._found: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, images: Any, **options: Any) -> Any:
        if self._found is None:
            self._found = self._inner(images, **options)
        # Processors take entries out of what they get.
        return copy.copy(self._found)


def special_tokens_in_chat(tokenizer: Any, written: str) -> bool:
    """True if a processor adds the tokenizer's special tokens to what its chat template has written.

    It does so unless the text begins with the token for the beginning of a text, as the ``apply_chat_template`` of
    processors in transformers.
    """
    begin = tokenizer.bos_token
    return not (isinstance(begin, str) and begin and written.startswith(begin))


def placeholder(processor: Any) -> str:
    """The text that stands for a picture in a prompt; empty if the processor names none."""
    named = (getattr(processor, name, None) for name in ("boi_token", "image_token"))
    return next((one for one in named if isinstance(one, str) and one), "")


def image_token_ids(processor: Any) -> frozenset[int]:
    """Ids of the tokens whose embeddings a picture replaces."""
    named = getattr(processor, "image_token_ids", None) or [getattr(processor, "image_token_id", None)]
    found = frozenset(one for one in named if isinstance(one, int))
    if found:
        return found
    token = getattr(processor, "image_token", None)
    return frozenset({int(processor.tokenizer.convert_tokens_to_ids(token))} if isinstance(token, str) else ())


def processed(
    processor: Any, text: str, pictures: Sequence[Any], *, special_tokens: bool = True, **options: Any
) -> Mapping[str, Any]:
    """The inputs of the model for one prompt, from its processor.

    Raises:
        InputError: the processor refuses the text or the pictures.
    """
    images = [[as_image(one) for one in pictures]] if pictures else None
    try:
        with warnings.catch_warnings():
            # Processors make arrays of tensors in a way that NumPy is about to drop.
            warnings.simplefilter("ignore", DeprecationWarning)
            found: Mapping[str, Any] = processor(
                images=images, text=[text], add_special_tokens=special_tokens, **options
            )
        return found
    except REFUSALS as error:
        raise InputError(
            f"{type(processor).__name__} cannot write this prompt ({type(error).__name__}: {error!s:.300})."
        ) from error


def as_image(picture: Any) -> Any:
    """An array as a PIL image: processors guess where the channels of an array are, wrongly if it is 3 pixels high."""
    from PIL import Image

    return Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture

"""Pictures with a text: regions of the pictures and parts of the text are features of one prompt."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apportion.errors import InputError, shown
from apportion.options import whole_number
from apportion.prompts.chat import Chat
from apportion.prompts.common import PIECES, Splitter, check_by
from apportion.prompts.template import Template
from apportion.prompts.text import Text

__all__ = ["MAX_PIXELS", "ImageText"]

MAX_PIXELS = 50_000_000
"""Pixels of the largest picture that is read by default."""


@dataclass(frozen=True, eq=False)
class ImageText:
    """One or several pictures and a text, for models that read both.

    Features are regions of the pictures, followed by the parts of the text. A region that is absent is filled. A pixel
    in several regions is absent if one of them is; a pixel in none of them is always present.

    Args:
        images: a picture, or a list of pictures in the order in which the model reads them. A picture is a path, a PIL
            image, or an array ``UInt8[H, W]``, ``UInt8[H, W, 3]`` or ``UInt8[H, W, 4]``. It is turned upright by its
            EXIF orientation and converted to RGB; transparent pixels are shown on white; of an animation, the first
            frame is read.
        prompt: the text. A string is a user's message in the model's chat template, after the pictures; for a model
            without one, it follows the pictures. A string that has the model's own placeholders, such as ``<image>``,
            is read as it is; its control tokens are always present. ``Text`` and ``Template`` work like strings. In a
            ``Chat``, parts such as ``{"type": "image"}`` say where the pictures are.
        segments: regions of each picture: the name of a segmenter with its options (``"grid:4x4"``, ``"slic:40"``,
            ``"patches"`` for the model's own; see ``apportion segmenters``); an object with ``segment``; a label map
            ``Int[H, W]``; a list or dict by name of masks ``Bool[H, W]``, which may overlap; or a list or dict by name
            of boxes ``(left, top, right, bottom)`` in pixels. ``None`` for a picture that is always present. For
            several pictures, a name or ``None`` holds for each of them; anything else is a list with one item each.
        fill: replacement of absent pixels: ``"mean"`` (the picture's mean colour), ``"local_mean"``, ``"blur"``,
            ``"noise"``, ``"inpaint"`` (see ``apportion fills``), a colour (``"black"``, ``"#808080"``, or red, green
            and blue), another picture, or an object with ``fill``.
        text_by: parts of a string that are features: ``"words"``, ``"sentences"``, ``"lines"``, ``"paragraphs"``, or
            a function from the text to its pieces. Other prompts say themselves what is split. ``None`` for none: the
            text is always present, whatever type it has.
        max_pixels: pixels of the largest picture that is accepted.

    Raises:
        InputError: there is no picture, ``text_by`` is unknown or does not apply, or nothing is left to attribute to.
    """

    images: object
    prompt: str | Text | Template | Chat = ""
    segments: object = "grid:4x4"
    fill: object = "mean"
    text_by: str | Splitter | None = "words"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        # In forms that a result's file can hold.
        object.__setattr__(self, "images", _plain(self.images))
        object.__setattr__(self, "segments", _plain(self.segments))
        object.__setattr__(self, "fill", _plain(_file(self.fill)))
        if not self.pictures:
            raise InputError("ImageText takes one picture or a list of them; the list is empty.")
        for picture in self.pictures:
            if (
                isinstance(picture, bool | int | float | dict | set)
                or picture is None
                or (isinstance(picture, str) and not picture)
            ):
                raise InputError(
                    f"{shown(picture)} is not a picture. Give a path, a PIL image, or an array UInt8[H, W, 3]."
                )
            if isinstance(picture, str) and picture.startswith(("http://", "https://", "data:")):
                raise InputError(
                    f"{shown(picture)} is an address. Pictures are not downloaded: give the path of a file, its bytes, "
                    "or a PIL image."
                )
        if not isinstance(self.prompt, str | Text | Template | Chat):
            raise InputError(
                f"The text beside the pictures is a str, ap.Text, ap.Template or ap.Chat, and not {shown(self.prompt)}."
            )
        if isinstance(self.prompt, Text) and self.prompt.by == "tokens":
            raise InputError("A text beside pictures cannot be split by 'tokens'; use 'words' or larger pieces.")
        if self.text_by is not None:
            check_by(self.text_by, PIECES)
            if self.text_by != "words" and not isinstance(self.prompt, str):
                raise InputError(
                    f"text_by={shown(self.text_by)} is for a text that is a str; ap.{type(self.prompt).__name__} says "
                    "itself what is split. With text_by=None, it is always present."
                )
        whole_number("max_pixels", self.max_pixels, least=1)
        if isinstance(self.segments, str | os.PathLike) and not str(self.segments):
            raise InputError("segments='' is empty. Name a segmenter, such as 'grid:4x4', or give None.")

    @property
    def pictures(self) -> tuple[object, ...]:
        """The pictures, in order."""
        if isinstance(self.images, list | tuple):
            return tuple(self.images)
        return (self.images,)

    def segments_of_each(self) -> tuple[object, ...]:
        """The segments of each picture.

        Raises:
            InputError: a list has another number of items than there are pictures.
        """
        n = len(self.pictures)
        if n == 1 and isinstance(self.segments, list) and len(self.segments) == 1 and _is_choice(self.segments[0]):
            return (self.segments[0],)
        if n == 1 or self.segments is None or isinstance(self.segments, str) or hasattr(self.segments, "segment"):
            return (self.segments,) * n
        if isinstance(self.segments, Sequence) and not isinstance(self.segments, Mapping) and len(self.segments) == n:
            return tuple(self.segments)
        raise InputError(
            f"For {n} pictures, segments is a name that holds for each of them, or a list of {n}; it is "
            f"{shown(self.segments)}."
        )

    @classmethod
    def example(cls) -> ImageText:
        """A small example, for trying things out (``apportion plugins check``)."""
        from PIL import Image

        return cls(Image.new("RGB", (32, 24), "white"), "What is it?", segments="grid:2x2")


def _is_choice(given: object) -> bool:
    """True for what can only stand for all regions of a picture, and not for one of them."""
    return given is None or isinstance(given, str | Mapping) or hasattr(given, "segment")


def _file(fill: object) -> object:
    """A path as a text that is not the name of a fill or of a colour; anything else as it is."""
    if isinstance(fill, os.PathLike):
        path = os.fspath(fill)
        return path if os.sep in path else f"{os.curdir}{os.sep}{path}"
    return fill


def _plain(given: object, depth: int = 3) -> object:
    """Paths as text, and numbers of NumPy as numbers of Python; in lists of lists of boxes, too."""
    if isinstance(given, os.PathLike):
        return os.fspath(given)
    if type(given).__module__ == "numpy" and getattr(given, "shape", None) == ():
        return given.item()  # type: ignore[attr-defined]
    if depth and type(given) in (list, tuple):
        return type(given)(_plain(one, depth - 1) for one in given)  # type: ignore[attr-defined,call-arg]
    if depth and type(given) is dict:
        return {key: _plain(one, depth - 1) for key, one in given.items()}
    return given

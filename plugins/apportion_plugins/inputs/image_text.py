"""Pictures with a text, whose features are regions of the pictures and parts of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from apportion.errors import CapabilityError, InputError, counted
from apportion.prompts.chat import Chat
from apportion.prompts.image_text import ImageText
from apportion.prompts.template import Template
from apportion.prompts.text import Text
from apportion.protocols.features import Feature, Segment
from apportion.protocols.inputs import Alternatives
from apportion.protocols.pictures import Picture
from apportion.protocols.row import Media, ModelInput
from apportion.rendering.context import AdaptContext
from apportion.rendering.encoder import check_encodable
from apportion.rendering.picture_writer import PictureWriter
from apportion_plugins.inputs.chat import ChatAdapter
from apportion_plugins.inputs.chat_template import check_control_tokens
from apportion_plugins.inputs.naming import unique_names
from apportion_plugins.inputs.template import TemplateAdapter
from apportion_plugins.inputs.text import text_adapter
from apportion_plugins.pictures.choosing import chosen_fill, chosen_regions, fill_name
from apportion_plugins.pictures.loading import LoadedPicture, load_picture
from apportion_plugins.pictures.perturbing import PerturbedPicture

__all__ = ["ImageTextAdapter"]


class ImageTextAdapter:
    """Renders each coalition as the text of one adapter and the pictures with some regions filled.

    Args:
        prompt: the prompt.
        context: the context, with the model's processor.

    Raises:
        CapabilityError: the model reads text only.
        InputError: a picture cannot be read, segments do not fit, or nothing is left to attribute to.
    """

    def __init__(self, prompt: ImageText, context: AdaptContext) -> None:
        if context.processor is None:
            raise CapabilityError(
                "This model reads text only, so it cannot read the pictures of an ImageText. Open a model with its "
                "processor, such as Explainer((model, processor)) or Explainer('shapes')."
            )
        fill = chosen_fill(prompt.fill, prompt.max_pixels, context.make)
        loaded = [load_picture(one, _name(i, prompt), prompt.max_pixels) for i, one in enumerate(prompt.pictures)]
        notes = [note for one in loaded for note in one.notes]
        self._perturbed: list[PerturbedPicture] = []
        for one, given in zip(loaded, prompt.segments_of_each(), strict=True):
            regions, more = chosen_regions(given, one.pixels, one.name, context.processor, context.make)
            notes += more
            self._perturbed.append(PerturbedPicture(one.pixels, regions, fill, context.seed))
        self._text = _text_of(prompt, context, PictureWriter(context.processor, [one.pixels for one in loaded]))
        shown = self._region_features(loaded, fill_name(prompt.fill))
        self.features = _joined(shown, self._text.features)
        if not self.features:
            raise InputError("segments=None and text_by=None leave nothing to attribute to; give at least one of them.")
        self._split = len(shown)
        self.draws: int = getattr(self._text, "draws", 1)
        self.segments = tuple(
            Segment(one.text, None if one.feature is None else one.feature + self._split) for one in self._text.segments
        )
        self.notes = (*notes, *getattr(self._text, "notes", ()))
        self.pictures = self._shown(loaded, fill_name(prompt.fill))

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput | Alternatives]:
        """Render each coalition: its text, and its pictures as media."""
        found: list[ModelInput | Alternatives] = []
        texts = self._text.render(mask[:, self._split :])
        for row, text in zip(mask[:, : self._split].tolist(), texts, strict=True):
            media = self._media(row)
            if isinstance(text, Alternatives):
                found.append(Alternatives(tuple(replace(one, media=media) for one in text.inputs)))
            else:
                found.append(replace(text, media=media))
        return found

    def _media(self, present: Sequence[bool]) -> tuple[Media, ...]:
        found, start = [], 0
        for one in self._perturbed:
            stop = start + len(one.regions)
            found.append(one.media(present[start:stop]))
            start = stop
        return tuple(found)

    def _region_features(self, loaded: Sequence[LoadedPicture], fill: str) -> list[Feature]:
        several = len(loaded) > 1
        return [
            Feature(
                f"picture {i}, {region.name}" if several else region.name,
                f"{region.name} of {one.name}" if several else region.name,
                baseline=f"[{fill}]",
            )
            for i, (one, perturbed) in enumerate(zip(loaded, self._perturbed, strict=True), 1)
            for region in perturbed.regions
        ]

    def _shown(self, loaded: Sequence[LoadedPicture], fill: str) -> tuple[Picture, ...]:
        """The pictures for views, with the numbers of their features."""
        found, start = [], 0
        for one, perturbed in zip(loaded, self._perturbed, strict=True):
            masks = {start + i: region.mask for i, region in enumerate(perturbed.regions)}
            height, width = one.pixels.shape[:2]
            found.append(Picture(one.name, width, height, masks, one.pixels, fill))
            start += len(perturbed.regions)
        return tuple(found)


class _Whole:
    """A text that is always present.

    Args:
        text: the text.
        context: writes it.
    """

    features: tuple[Feature, ...] = ()

    def __init__(self, text: str, context: AdaptContext) -> None:
        check_encodable("prompt", text)
        (self._input,) = context.prompts([text])
        self.segments = (Segment(text),) if text else ()

    def render(self, mask: Bool[Tensor, "S 0"]) -> list[ModelInput]:
        """The same text for every coalition."""
        return [self._input] * len(mask)


def _text_of(prompt: ImageText, context: AdaptContext, writer: PictureWriter) -> Any:
    """The adapter of the text, which writes placeholders for the pictures."""
    given = prompt.prompt
    if isinstance(given, Chat):
        return ChatAdapter(_with_pictures(given, prompt, writer), replace(context, writer=_as_written(writer)))
    inside = replace(context, writer=_framed(writer, given))
    if isinstance(given, Template):
        return TemplateAdapter(given, inside)
    if isinstance(given, Text):
        return text_adapter(given, inside)
    if prompt.text_by is None or not given.strip():
        return _Whole(given, inside)
    return text_adapter(Text(given, by=prompt.text_by), inside)


def _with_pictures(chat: Chat, prompt: ImageText, writer: PictureWriter) -> Chat:
    """The chat in the template of the processor, which knows where pictures stand."""
    if chat.image_parts != len(prompt.pictures):
        raise InputError(
            f"The chat has {counted(chat.image_parts, 'part')} of the type 'image' for "
            f"{counted(len(prompt.pictures), 'picture')}; it needs one for each."
        )
    own = chat.chat_template is None and isinstance(writer.chat_template, str)
    return replace(chat, chat_template=writer.chat_template) if own else chat


def _as_written(writer: PictureWriter) -> Any:
    def write(texts: Sequence[str], special_tokens: bool) -> list[tuple[int, ...]]:
        return [writer.read(text, special_tokens=special_tokens) for text in texts]

    return write


def _framed(writer: PictureWriter, given: str | Text | Template) -> Any:
    """A function that writes texts with pictures: as they are if they have placeholders, in a chat, or after them."""
    own = writer.count(str(given.template) if isinstance(given, Template) else getattr(given, "text", str(given)))

    def write(texts: Sequence[str], special_tokens: bool) -> list[tuple[int, ...]]:
        if own:
            return [writer.read(text, special_tokens=special_tokens) for text in texts]
        if writer.chat_template:
            check_control_tokens(writer.processor.tokenizer, list(texts), allowed=False)
            return [writer.read(writer.in_chat(text), special_tokens=False) for text in texts]
        return [writer.read(writer.before(text), special_tokens=special_tokens) for text in texts]

    return write


def _joined(regions: Sequence[Feature], parts: Sequence[Feature]) -> tuple[Feature, ...]:
    """Features with unique names; a part of the text may be called like a region."""
    names = unique_names([one.name for one in (*regions, *parts)])
    return tuple(replace(one, name=name) for one, name in zip((*regions, *parts), names, strict=True))


def _name(number: int, prompt: ImageText) -> str:
    return "the picture" if len(prompt.pictures) == 1 else f"picture {number + 1}"

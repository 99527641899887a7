"""Pictures with a text, whose features are regions of the pictures and parts of the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from apportion.errors import CapabilityError, InputError, counted, listing
from apportion.prompts.chat import Chat
from apportion.prompts.image_text import ImageText
from apportion.prompts.template import Template
from apportion.prompts.text import Text
from apportion.protocols.features import Feature, Segment
from apportion.protocols.inputs import Alternatives, InputAdapter
from apportion.protocols.pictures import Picture
from apportion.protocols.row import Media, ModelInput
from apportion.rendering.context import AdaptContext
from apportion.rendering.encoder import check_encodable
from apportion.rendering.picture_writer import PictureWriter
from apportion_plugins.inputs.chat import ChatAdapter
from apportion_plugins.inputs.control_tokens import around_control_tokens, control_tokens_in
from apportion_plugins.inputs.naming import unique_names
from apportion_plugins.inputs.template import TemplateAdapter
from apportion_plugins.inputs.text import text_adapter
from apportion_plugins.pictures.choosing import chosen_fill, chosen_regions, fill_name
from apportion_plugins.pictures.loading import LoadedPicture, load_picture
from apportion_plugins.pictures.perturbing import PerturbedPicture
from apportion_plugins.pictures.visible import note_on_crop

__all__ = ["ImageTextAdapter"]

Write = Callable[[Sequence[str], bool], list[tuple[int, ...]]]
"""Turns texts into the token ids of whole prompts, with the tokenizer's special tokens or without."""


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
                "This explainer reads text only, so it cannot read the pictures of an ImageText. Open a model that "
                "reads pictures by its hub id or folder, or with its processor: Explainer((model, processor)). A "
                "tokenizer is not enough."
            )
        fill, about_fill = chosen_fill(prompt.fill, prompt.max_pixels, context.make)
        loaded = [load_picture(one, _name(i, prompt), prompt.max_pixels) for i, one in enumerate(prompt.pictures)]
        notes = [note for one in loaded for note in one.notes]
        self._perturbed: list[PerturbedPicture] = []
        for one, given in zip(loaded, prompt.segments_of_each(), strict=True):
            regions, more = chosen_regions(given, one.pixels, one.name, context.processor, context.make)
            crop = note_on_crop(context.processor, one.name, *one.pixels.shape[:2])
            notes += [*more, *([crop] if crop else [])]
            self._perturbed.append(PerturbedPicture(one.pixels, regions, fill, context.seed))
        writer = PictureWriter(context.processor, [one.pixels for one in loaded], context.omitted)
        self._text = _text_of(prompt, context, writer)
        shown = self._region_features(loaded, fill_name(prompt.fill))
        self.features = _joined(shown, self._text.features)
        if not self.features:
            raise InputError(
                "The prompt leaves nothing to attribute to: its pictures have no segments, and its text is always "
                "present. Give segments=, or text_by= for a text that is a str."
            )
        self._split = len(shown)
        self.draws: int = getattr(self._text, "draws", 1)
        self.segments = tuple(
            Segment(one.text, None if one.feature is None else one.feature + self._split)
            for one in getattr(self._text, "segments", ())
        )
        if shown:
            notes += about_fill
            notes.append(f"fill of absent regions: {fill_name(prompt.fill)}")
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
            digest = perturbed.media([True] * len(perturbed.regions)).digest
            found.append(Picture(one.name, width, height, masks, one.pixels, fill, digest))
            start += len(perturbed.regions)
        return tuple(found)


class _AlwaysPresent:
    """A text without features, which is present in every coalition.

    Args:
        adapter: the adapter of the text, whose features are all present.
    """

    features: tuple[Feature, ...] = ()

    def __init__(self, adapter: InputAdapter) -> None:
        (full,) = adapter.render(torch.ones(1, len(adapter.features), dtype=torch.bool))
        # With nothing absent, alternatives are equal.
        self._input = full.inputs[0] if isinstance(full, Alternatives) else full
        self.notes: tuple[str, ...] = getattr(adapter, "notes", ())
        self.segments = tuple(Segment(one.text) for one in getattr(adapter, "segments", ()))

    def render(self, mask: Bool[Tensor, "S 0"]) -> list[ModelInput]:
        """The same text for every coalition."""
        return [self._input] * len(mask)


class _Plain:
    """A string as one piece of text.

    Args:
        text: the text.
        context: writes it.
    """

    features: tuple[Feature, ...] = ()

    def __init__(self, text: str, context: AdaptContext) -> None:
        check_encodable("prompt", text)
        self._text, self._context = text, context
        self.segments = (Segment(text),) if text else ()

    def render(self, mask: Bool[Tensor, "S 0"]) -> list[ModelInput]:
        """The same text for every coalition."""
        return self._context.prompts([self._text]) * len(mask)


def _text_of(prompt: ImageText, context: AdaptContext, writer: PictureWriter) -> InputAdapter:
    """The adapter of the text, which writes placeholders for the pictures."""
    found = _split_text(prompt, context, writer)
    return _AlwaysPresent(found) if prompt.text_by is None or not found.features else found


def _split_text(prompt: ImageText, context: AdaptContext, writer: PictureWriter) -> InputAdapter:
    given = prompt.prompt
    if isinstance(given, Chat):
        _check_image_parts(given, len(prompt.pictures))
        # What is always present need not be left out on trial.
        chat = replace(given, keep=lambda _: True) if prompt.text_by is None else given
        return ChatAdapter(chat, replace(context, writer=_as_chat(writer)))
    inside = replace(context, writer=_framed(writer, given))
    if isinstance(given, Template):
        return TemplateAdapter(given, inside)
    text = given if isinstance(given, str) else given.text
    if prompt.text_by is None or not text.strip():
        return _Plain(text, inside)
    split = Text(text, by=prompt.text_by) if isinstance(given, str) else given
    whole = around_control_tokens(split, context.tokenizer, writer.placeholder)
    return _Plain(text, inside) if whole is None else text_adapter(whole, inside)


def _check_image_parts(chat: Chat, pictures: int) -> None:
    if chat.image_parts != pictures:
        raise InputError(
            f"The chat has {counted(chat.image_parts, 'part')} of the type 'image' for "
            f"{counted(pictures, 'picture')}; it needs one for each."
        )


def _as_chat(writer: PictureWriter) -> Write:
    def write(texts: Sequence[str], special_tokens: bool) -> list[tuple[int, ...]]:
        return [writer.read(text, special_tokens=special_tokens) for text in texts]

    return write


def _framed(writer: PictureWriter, given: str | Text | Template) -> Write:
    """A function that writes texts with pictures: as they are if they have placeholders, in a chat, or after them."""
    own = writer.count(str(given.template) if isinstance(given, Template) else getattr(given, "text", str(given)))

    def write(texts: Sequence[str], special_tokens: bool) -> list[tuple[int, ...]]:
        if own:  # markup that a chat template has written may begin with the first token
            return [writer.read_chat(text) for text in texts]
        if writer.chat_template:
            _check_no_control_tokens(writer, texts)
            return [writer.read_chat(writer.in_chat(text)) for text in texts]
        return [writer.read(writer.before(text), special_tokens=special_tokens) for text in texts]

    return write


def _check_no_control_tokens(writer: PictureWriter, texts: Sequence[str]) -> None:
    found = control_tokens_in(writer.processor.tokenizer, list(texts))
    if found:
        raise InputError(
            f"The text contains {listing(map(repr, found))}, which the tokenizer reads as control tokens: the model "
            "would take them for message markup rather than text. Remove or rephrase them; or pass an ap.Chat with "
            "allow_control_tokens=True, or the whole prompt in the model's own markup with a placeholder for each "
            "picture."
        )


def _joined(regions: Sequence[Feature], parts: Sequence[Feature]) -> tuple[Feature, ...]:
    """Features with unique names; a part of the text may be called like a region."""
    names = unique_names([one.name for one in (*regions, *parts)])
    return tuple(replace(one, name=name) for one, name in zip((*regions, *parts), names, strict=True))


def _name(number: int, prompt: ImageText) -> str:
    return "the picture" if len(prompt.pictures) == 1 else f"picture {number + 1}"

"""Probe of a model that reads pictures: its shortcuts are compared with rows that it reads alone, from pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from apportion.errors import InputError, ScoreError
from apportion.protocols.row import Media, Row
from apportion.rendering.picture_writer import PictureWriter, image_token_ids, processed
from apportion.scoring.prefix_tree import shared_prompt
from apportion_backends.torch.comparing import LIKE, REFUSALS, UNLIKE, difference, plain_head, random_tokens
from apportion_backends.torch.head import Head
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.pictures.prefixes import PicturePrefixes
from apportion_backends.torch.pictures.reader import PictureReader, forget_positions, taken, target_places
from apportion_backends.torch.pictures.token_types import TokenTypes, UnknownInputError
from apportion_backends.torch.pictures.tower import features_argument

__all__ = ["PictureTraits", "probe_pictures"]

WIDE, TALL = (96, 72), (72, 96)
"""Sizes of the pictures that are tried, in pixels."""
SHORT, LONG = "What is this?", "What is to the left of the red circle in the picture, and what is to the right?"
SEEN = 10.0
"""A picture has an effect if it changes logits by this multiple of what rounding may change in rows of one shape."""
FAILURES = (*REFUSALS, KeyError, StopIteration, InputError, ScoreError)


@dataclass(frozen=True, slots=True)
class PictureTraits:
    """Findings on how a model reads pictures, and the shortcuts that it allows.

    Attributes:
        refusal: the reason why it cannot read pictures; empty if it can.
        types: the numbers that it reads for each token.
        effect: another picture gives other logits.
        reuse: features of pictures that were encoded before, and together, give the logits of pixels.
        batching: rows of one length may share a batch.
        padding: rows of different lengths may, padded on the right.
        prefix_sharing: a prefix of rows with the same pictures may be encoded once.
        linear_head: logits are the output layer, applied to the base model's last hidden states.
        feature_bytes: memory of the features of a picture that was tried.
    """

    refusal: str = ""
    types: TokenTypes = field(default_factory=TokenTypes)
    effect: bool = False
    reuse: bool = False
    batching: bool = False
    padding: bool = False
    prefix_sharing: bool = False
    linear_head: bool = False
    feature_bytes: int = 0

    def notes(self) -> tuple[str, ...]:
        """Sentences for results, for what is out of the ordinary."""
        if self.refusal:
            return ()
        if not self.effect:
            return ("pictures have no effect on this model's logits, as far as was tried",)
        if not self.reuse:
            return ("this model encodes each picture again for every prompt, because its features cannot be reused",)
        if not self.batching:
            return ("this model gives other numbers in a batch of pictures; rows are scored one at a time",)
        if not self.padding:
            return ("padding changes this model's numbers; batches of pictures hold rows of one length",)
        return ()


def probe_pictures(model: PreTrainedModel, processor: Any) -> PictureTraits:
    """Find out how a model reads pictures. It is not an error if it cannot: the traits give the reason."""
    try:
        with scoring_mode(model):
            found = _Probe(model, processor).traits()
        forget_positions(model)
        return found
    except UnknownInputError as error:
        return PictureTraits(refusal=str(error))
    except FAILURES as error:
        return PictureTraits(refusal=f"it fails on a picture ({type(error).__name__}: {error!s:.200})")


class _Probe:
    """Compares ways to read rows with pictures.

    Args:
        model: the model, in ``scoring_mode``.
        processor: its processor.
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        self._model, self._processor = model, processor
        self._pictures = [_picture(seed, size) for seed, size in enumerate((WIDE, WIDE, TALL))]
        self._types = self._learned()
        self._rows = self._written()
        self._unlike = UNLIKE.get(model.dtype, 1e-4)
        self._scale = 1.0

    def traits(self) -> PictureTraits:
        """Everything that was found out."""
        types = self._directed()
        if types is None:
            return PictureTraits(refusal="its logits depend on later tokens where it reads pictures")
        self._types = types
        reader = self._reader(types)
        first, other, tall = self._rows
        alone = [self._alone(reader, row) for row in self._rows]
        self._scale = float(alone[0].double().std()) or 1.0
        moved = self._alone(reader, replace(first, media=other.media))
        moved_by = float(difference(moved, alone[0]).max()) / self._scale
        effect = moved_by > SEEN * LIKE
        # Beyond this, a shortcut that reads another picture would pass.
        self._unlike = min(self._unlike, moved_by / 3) if effect else self._unlike
        found = PictureTraits(types=types, effect=effect)
        linear = self._has_linear_head(reader, alone[0])
        # Without an effect, nothing that is done to pictures shows.
        if not effect or not self._agree(reader, [[first], [other], [tall]], alone):
            return replace(found, linear_head=linear)
        padding = self._agree(reader, [self._rows], alone) and self._two_pictures(reader)
        batching = self._agree(reader, [[first, replace(first, media=other.media)]], [alone[0], moved])
        return replace(
            found,
            reuse=True,
            linear_head=linear,
            batching=batching,
            padding=batching and padding,
            prefix_sharing=batching and padding and self._shares_prefixes(reader),
            feature_bytes=max(features.bytes for features in reader.tower(row.media[0] for row in self._rows).values()),
        )

    def _reader(self, types: TokenTypes) -> PictureReader:
        return PictureReader(self._model, self._processor, types, budget=2**40, tokens_at_once=2**20)

    def _learned(self) -> TokenTypes:
        writers = [PictureWriter(self._processor, [picture]) for picture in self._pictures[:2]]
        samples = [
            processed(self._processor, writer.before(text), [picture], return_tensors="pt")
            for writer, picture, text in zip(writers, self._pictures, (SHORT, LONG), strict=False)
        ]
        return TokenTypes.learned(samples, image_token_ids(self._processor))

    def _written(self) -> list[Row]:
        """Three rows of different lengths: two with pictures of one size, and one with a picture of another."""
        rows = []
        for picture, text, length in zip(self._pictures, (SHORT, LONG, LONG), (5, 3, 4), strict=True):
            writer = PictureWriter(self._processor, [picture])
            ids = writer.read(writer.before(text), special_tokens=True)
            rows.append(Row(ids, self._target(length), (Media.of("image", picture),)))
        return rows

    def _target(self, length: int) -> tuple[int, ...]:
        vocabulary = self._model.config.get_text_config().vocab_size
        ids = random_tokens(vocabulary, 4 * length + 16, seed=length).tolist()
        return tuple([one for one in ids if one not in self._types.image_ids][:length])

    def _directed(self) -> TokenTypes | None:
        """The types with which no token looks at later ones, neither in the prompt nor in the target."""
        for number in (0, 1) if self._types.names else (0,):
            types = replace(self._types, of_target=number)
            if self._is_causal(self._reader(types)):
                return types
        return None

    def _is_causal(self, reader: PictureReader) -> bool:
        row = self._rows[0]
        whole = self._alone(reader, row)
        self._scale = float(whole.double().std()) or 1.0
        changed = self._alone(reader, replace(row, target=(*row.target[:-2], row.target[-1], row.target[0])))
        prompt = self._alone(reader, replace(row, target=row.target[:1]))
        return self._equal(changed[:-1], whole[:-1], LIKE) and self._equal(prompt, whole[:1])

    def _alone(self, reader: PictureReader, row: Row) -> Float[Tensor, "T V"]:
        logits: Tensor = self._model(**reader.from_pixels(row), use_cache=False, return_dict=True).logits
        if logits.shape[1] != len(row.read):
            raise UnknownInputError(f"it gives {logits.shape[1]} logits for a row of {len(row.read)} tokens")
        return taken(logits, target_places([row], logits.device))[0]

    def _agree(
        self, reader: PictureReader, batches: Sequence[Sequence[Row]], alone: Sequence[Float[Tensor, "T V"]]
    ) -> bool:
        """True if batches of rows that are read by features have the logits of rows read alone."""
        if not features_argument(self._model):
            return False
        expected = iter(alone)
        try:
            for rows in batches:
                logits = self._model(**reader.from_features(rows), use_cache=False, return_dict=True).logits
                found = taken(logits, target_places(rows, logits.device))
                for ours, row in zip(found, rows, strict=True):
                    if not self._equal(ours[: len(row.target)], next(expected)):
                        return False
        except FAILURES:
            return False
        return True

    def _two_pictures(self, reader: PictureReader) -> bool:
        """True if rows with several pictures may share a batch with others; true, too, if none can have several."""
        writer = PictureWriter(self._processor, [self._pictures[0], self._pictures[2]])
        media = (self._rows[0].media[0], self._rows[2].media[0])
        try:
            row = Row(writer.read(writer.before(SHORT), special_tokens=True), self._target(3), media)
            alone = self._alone(reader, row)
        except FAILURES:
            return True
        return self._agree(reader, [[row, self._rows[1]]], [alone, self._alone(reader, self._rows[1])])

    def _shares_prefixes(self, reader: PictureReader) -> bool:
        """True if rows may be read after a prefix: through their picture, up to it, longer, and shorter again.

        A prompt that is read in both directions is not the same after a prefix.
        """
        if self._types.of_target:
            return False
        first, other = self._rows[0], replace(self._rows[1], media=self._rows[0].media)
        shared, pictured = shared_prompt(first, other), len(first.prompt) - 3
        rows, alone = [first, other], [self._alone(reader, row) for row in (first, other)]
        again = [replace(first, target=first.target[:2]), first]
        prefixes = PicturePrefixes(self._model, reader)
        try:
            # The second pair has one prompt, of which more is shared.
            for some, length in ((rows, shared), (again, pictured), (rows, shared), (rows, 1), (rows, shared)):
                found = prefixes.rest(some, length)
                if found is None and length == 1:  # the picture comes first
                    continue
                if found is None:
                    return False
                arguments, start = found
                logits = self._model(**arguments, return_dict=True).logits
                ours = taken(logits, target_places(some, logits.device) - start)
                expected = alone if some is rows else [alone[0][:2], alone[0]]
                pairs = zip(ours, expected, some, strict=True)
                if not all(self._equal(one[: len(row.target)], known) for one, known, row in pairs):
                    return False
        except FAILURES:
            return False
        return True

    def _has_linear_head(self, reader: PictureReader, logits: Float[Tensor, "T V"]) -> bool:
        head = plain_head(self._model, self._model)
        if head is None or self._model.base_model is self._model:
            return False
        row = self._rows[0]
        try:
            arguments = reader.from_pixels(row)
            hidden = self._model.base_model(**arguments, use_cache=False, return_dict=True)[0]
        except REFUSALS:
            return False
        states = taken(hidden, target_places([row], hidden.device)).to(head.weight.dtype)
        found = Head.of(self._model).capped(torch.nn.functional.linear(states, head.weight, head.bias))
        return self._equal(found[0], logits)

    def _equal(self, ours: Tensor, reference: Tensor, tolerance: float | None = None) -> bool:
        if ours.shape != reference.shape:
            return False
        allowed = (self._unlike if tolerance is None else tolerance) * self._scale
        return bool(difference(ours, reference).max() <= allowed)


def _picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Random blocks of colour."""
    width, height = size
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    return blocks[np.arange(height) * 4 // height][:, np.arange(width) * 4 // width]

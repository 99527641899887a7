"""The session of a model that reads pictures with text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apportion.errors import BackendError, ModelError, ScoreError
from apportion.protocols.backend import WHITE_BOX, Capability, Layout
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.generating import generated
from apportion_backends.torch.loading import OpenModel
from apportion_backends.torch.model_session import batch_size
from apportion_backends.torch.pictures.prefixes import PicturePrefixes
from apportion_backends.torch.pictures.probe import PictureTraits
from apportion_backends.torch.pictures.reader import PictureReader, forget_positions, taken, target_places
from apportion_backends.torch.pictures.remembered import picture_traits
from apportion_backends.torch.pictures.vision_inputs import processor_settings
from apportion_backends.torch.probe import probe, still_holds
from apportion_backends.torch.remembered import remembered_traits, traits_of_object
from apportion_backends.torch.session import TorchSession
from apportion_backends.torch.structure import StructureLog

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ImageTextSession"]


class ImageTextSession(TorchSession):
    """A causal ``transformers`` model on one device that also reads pictures.

    Each distinct picture is encoded once, and its features are read by all rows that have it. Where that is not proven
    for a model, it reads rows one at a time, from pixels. Rows without pictures are read as those of any causal model.

    Args:
        model: the open model, its tokenizer and its processor.
        memory_budget: bytes a batch may take.

    Attributes:
        processor: the model's processor.
    """

    def __init__(self, model: OpenModel, memory_budget: int) -> None:
        self.processor: Any = model.processor
        self._owned = model.owned
        self._encoded_before = 0
        self._reader: PictureReader | None = None
        self._shared: PicturePrefixes | None = None
        traits = self._of_text(model.model, remembered_traits if model.owned else traits_of_object)
        structure = StructureLog(model.model, traits, find=self._of_text, holds=self._still_holds)
        super().__init__(model, traits, memory_budget, structure=structure)

    @property
    def encoded_media(self) -> int:
        """Number of pictures encoded so far."""
        return self._encoded_before + (self._reader.encoded if self._reader is not None else 0)

    @property
    def media_refusal(self) -> str:
        """The reason why it does not read pictures; empty if it does."""
        return self._seen.refusal

    @property
    def layout(self) -> Layout:
        """The layout that this model allows, and that of rows with pictures."""
        own = super().layout.without_sharing() if self._directed else super().layout
        found, refused = self._seen, self._guard.refused
        batching = self._reuses and found.batching and "batching" not in refused
        tokens, overhead = batch_size(self.model, batching=batching)
        media = Layout(
            padding=batching and found.padding and "padding" not in refused,
            prefix_sharing=batching and found.prefix_sharing and "prefix" not in refused,
            batch_tokens=tokens,
            batch_overhead=overhead,
            kept_media=max(1, self._feature_budget // found.feature_bytes) if found.feature_bytes else None,
        )
        return replace(own, directed=self._directed, media=media)

    @property
    def kept(self) -> ModelInput | None:
        """The encoded prefix of rows with pictures, if the last batch had one; else that of rows of text."""
        pictures = self._shared
        return (pictures.kept if pictures is not None else None) or super().kept

    @property
    def _feature_budget(self) -> int:
        """Bytes of features that are kept from batch to batch."""
        return self._memory_budget // 2

    def _of_text(self, model: PreTrainedModel, find: Callable[[PreTrainedModel], Traits] = probe) -> Traits:
        """The traits of rows of text; none for a model that must be told where a target begins.

        Raises:
            ModelError: it reads neither text alone nor pictures.
        """
        seen = picture_traits(model, self.processor, owned=self._owned)
        self._text_refusal = ""
        if seen.types.of_target:
            return Traits.none()
        try:
            return find(model)
        except ModelError as error:
            if seen.refusal:
                raise
            self._text_refusal = str(error)
            return Traits.none()

    def _still_holds(self, model: PreTrainedModel, traits: Traits) -> bool:
        return traits == Traits.none() or still_holds(model, traits)

    @property
    def _directed(self) -> bool:
        """True if the model reads prompts in both directions, and must be told where the target begins."""
        return bool(self._seen.types.of_target)

    @property
    def _reuses(self) -> bool:
        """True if pictures are encoded apart from rows; a user's code may look at what it is given."""
        return self._seen.reuse and self._guard.doubt != "always"

    def generate(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> tuple[int, ...]:
        """The model's continuation of a prompt with pictures or without; see ``TorchSession.generate``.

        Raises:
            InputError: the model's ``generate`` does not take an option, or refuses its value, or it has no effect.
        """
        if self._reads_as_text([Row(prompt.ids, prompt.ids, prompt.media)]):
            return super().generate(prompt, options, seed, room, stop)
        reader = self._opened_reader()
        arguments = reader.prompt(prompt)
        ids = arguments.pop("input_ids")
        try:
            return generated(self.model, self.tokenizer, ids, options, seed, room, stop, inputs=arguments)
        finally:
            forget_positions(self.model)

    def fingerprint(self) -> str:
        """A hash of the model as it is now, and of the settings of its processor."""
        return self._with_settings(super().fingerprint())

    def checksum(self) -> str:
        """A hash of everything that decides the model's scores.

        Raises:
            CapabilityError: hooks, replaced functions, or weights that are not in memory.
        """
        return self._with_settings(super().checksum())

    def _read(self, batch: ScoringBatch) -> Float[Tensor, "B T D"]:
        if self._reads_as_text(batch.rows):
            return super()._read(batch)
        reader, rows = self._opened_reader(), batch.rows
        try:
            if self._reuses or not any(row.media for row in rows):
                after = self._prefixes_of(reader).rest(rows, batch.prefix_length) if batch.prefix_length else None
                return self._at_targets(*(after or (reader.from_features(rows), 0)), rows)
            alone = [self._at_targets(reader.from_pixels(row), 0, [row])[0] for row in rows]
            return pad_sequence(alone, batch_first=True)
        finally:
            forget_positions(self.model)

    def _at_targets(self, arguments: Mapping[str, Any], start: int, rows: Sequence[Row]) -> Float[Tensor, "B T D"]:
        """States at the positions before the target tokens: hidden ones if the head is linear, else logits.

        Args:
            arguments: the model's arguments for the rows.
            start: number of tokens of a prefix that are not among them.
            rows: the rows.
        """
        options: dict[str, Any] = {"use_cache": False, "return_dict": True, **arguments}
        if self._traits.linear_head:
            states = self.model.base_model(**options)[0]
            return self._read_by_head(states, target_places(rows, states.device) - start)
        logits: Tensor = self.model(**options).logits
        return taken(logits, target_places(rows, logits.device) - start)

    def _reads_as_text(self, rows: Sequence[Row]) -> bool:
        """True for rows without pictures, unless the model must be told where their targets begin."""
        if not any(row.media for row in rows):
            if self._text_refusal:
                raise ScoreError(
                    f"This model reads pictures with its prompts, and cannot read text alone: {self._text_refusal}"
                )
            return not self._directed
        if self._seen.refusal:
            raise BackendError(f"This model cannot read pictures here: {self._seen.refusal}.")
        return False

    def _opened_reader(self) -> PictureReader:
        reader = self._reader
        if reader is None:
            tokens, _ = batch_size(self.model, batching=True)
            reader = self._reader = PictureReader(
                self.model, self.processor, self._seen.types, budget=self._feature_budget, tokens_at_once=tokens
            )
        return reader

    def _prefixes_of(self, reader: PictureReader) -> PicturePrefixes:
        found = self._shared
        if found is None:
            found = self._shared = PicturePrefixes(self.model, reader)
        return found

    def _with_settings(self, name: str) -> str:
        return hashlib.blake2b(f"{name} {processor_settings(self.processor)}".encode(), digest_size=16).hexdigest()

    def _adapt(self, model: PreTrainedModel) -> None:
        self._seen: PictureTraits = picture_traits(model, self.processor, owned=self._owned)
        self._encoded_before, self._reader, self._shared = self.encoded_media, None, None
        super()._adapt(model)
        if not self._seen.refusal:
            self.capabilities |= {Capability.IMAGES}
        if self._directed or self._text_refusal:  # the white-box passes of text do not say where the target begins
            self.capabilities -= WHITE_BOX

    def _look(self) -> None:
        super()._look()
        if self._directed or self._text_refusal:
            self._traits = replace(self._traits, linear_head=self._seen.linear_head)
        elif self._traits.linear_head and not self._seen.linear_head and not self._seen.refusal:
            self._traits = replace(self._traits, linear_head=False, packing=False)
        text = () if self._directed or self._text_refusal else self._notes
        self._notes = (*text, *self._seen.notes())

    def _forget(self) -> None:
        super()._forget()
        self._shared = None
        if self._reader is not None:
            self._reader.tower.forget()

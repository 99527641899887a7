"""Reading of rows with pictures: by features that were encoded before, or row by row from pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from apportion.errors import ScoreError
from apportion.protocols.row import Media, ModelInput, Row
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.pictures.token_types import TokenTypes
from apportion_backends.torch.pictures.tower import Features, Tower, joined_geometry
from apportion_backends.torch.pictures.vision_inputs import PictureProcessor

__all__ = ["PictureReader", "forget_positions", "placeholder_id", "taken", "target_places"]


class PictureReader:
    """Makes a model's arguments of rows with pictures.

    Args:
        model: the model, in ``scoring_mode`` while it reads.
        processor: the model's processor.
        types: the numbers that the model reads for each token.
        budget: bytes of features that are kept from batch to batch.
        tokens_at_once: number of patches to encode in one forward pass.

    Attributes:
        types: the numbers that the model reads for each token.
        tower: encodes pictures.
    """

    def __init__(
        self, model: PreTrainedModel, processor: Any, types: TokenTypes, *, budget: int, tokens_at_once: int
    ) -> None:
        self._model = model
        self._device = input_device(model)
        self.types = types
        self._pictures = PictureProcessor(processor, types, model.dtype, self._device)
        self._token = placeholder_id(model, types)
        self.tower = Tower(model, self._pictures, budget=budget, tokens_at_once=tokens_at_once)
        self.encoded_alone = 0

    @property
    def encoded(self) -> int:
        """Number of pictures encoded so far."""
        return self.tower.encoded + self.encoded_alone

    def from_pixels(self, row: Row) -> dict[str, Any]:
        """Arguments for one row, whose pictures the model encodes by itself."""
        self.encoded_alone += len(row.media)
        return {**self._of_tokens([row]), **(self._pictures(row.media) if row.media else {})}

    def from_features(self, rows: Sequence[Row], places: tuple[int, int | None] = (0, None)) -> dict[str, Any]:
        """Arguments for rows, padded on the right, whose pictures have been encoded.

        Args:
            rows: the rows.
            places: the first token, and the first that follows, between which the pictures are wanted. All tokens are
                among the arguments.

        Raises:
            ScoreError: the tokens of a row do not fit its pictures.
        """
        arguments = self._of_tokens(rows)
        known = self.tower(chain.from_iterable(row.media for row in rows))
        wanted: list[Features] = []
        for row in rows:
            theirs = [known[one] for one in row.media]
            expected, found = sum(one.tokens for one in theirs), self.placeholders(row.read)
            if expected != found:
                raise ScoreError(
                    f"A prompt has {found} placeholder tokens for pictures, but its {len(row.media)} pictures have "
                    f"{expected} features. Pictures of a prompt must all have the size of those it was written with."
                )
            wanted += self._between(row, theirs, *places)
        return arguments | (self.tower.arguments(wanted) if wanted else {})

    def placeholders(self, ids: Sequence[int]) -> int:
        """Number of tokens that features replace."""
        return ids.count(self._token)

    def tokens_of(self, pictures: Sequence[Media]) -> list[int]:
        """Number of placeholder tokens of each picture."""
        known = self.tower(pictures)
        return [known[one].tokens for one in pictures]

    def geometry(self, pictures: Sequence[Media]) -> dict[str, Tensor]:
        """Arguments that say how the tokens of pictures are arranged."""
        known = self.tower(pictures)
        return joined_geometry([known[one] for one in pictures])

    def _between(self, row: Row, pictures: Sequence[Features], start: int, stop: int | None) -> list[Features]:
        """The pictures whose placeholders lie between two tokens."""
        before, after = (self.placeholders(row.read[:place]) for place in (start, stop))
        ends = list(accumulate(one.tokens for one in pictures))
        return [one for one, end in zip(pictures, ends, strict=True) if before < end <= after]

    def prompt(self, item: ModelInput) -> dict[str, Any]:
        """Arguments for a prompt that the model continues."""
        return self.from_pixels(Row(item.ids, item.ids[-1:], item.media))

    def _of_tokens(self, rows: Sequence[Row]) -> dict[str, Any]:
        ids, mask = self._padded([row.read for row in rows])
        return {"input_ids": ids, "attention_mask": mask, **self.types(ids, rows)}

    def _padded(self, rows: Sequence[tuple[int, ...]]) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
        """Ids, and a mask of those that are not padding, which must not look like a picture."""
        lengths = torch.tensor([len(row) for row in rows])
        pad = next(i for i in range(len(self.types.image_ids) + 2) if i not in (*self.types.image_ids, self._token))
        ids = torch.full((len(rows), int(lengths.max())), pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return ids.to(self._device), mask.to(self._device)


def target_places(rows: Sequence[Row], device: torch.device) -> Int[Tensor, "B T"]:
    """The positions before each target token; beyond a row's target, those of its last token."""
    lengths = torch.tensor([len(row.target) for row in rows])
    steps = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
    return (torch.tensor([len(row.prompt) for row in rows])[:, None] + steps - 1).to(device)


def taken(states: Float[Tensor, "B L D"], places: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """The states at some positions of each row."""
    return states.gather(1, places.to(states.device)[:, :, None].expand(-1, -1, states.shape[-1]))


def placeholder_id(model: PreTrainedModel, types: TokenTypes) -> int:
    """Id of the token that features replace."""
    config: Any = model.config
    for name in ("image_token_id", "image_token_index"):
        found = getattr(config, name, None)
        if isinstance(found, int):
            return found
    return types.image_ids[0] if types.image_ids else -1


def forget_positions(model: PreTrainedModel) -> None:
    """Reset the positions that a model has kept of the last pictures; the next text would be read after them."""
    base: Any = model.base_model
    if getattr(base, "rope_deltas", None) is not None:
        base.rope_deltas = None

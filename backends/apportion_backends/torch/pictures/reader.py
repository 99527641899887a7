"""Reading of rows with pictures: by features that were encoded before, or row by row from pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from apportion.errors import ScoreError
from apportion.protocols.row import ModelInput, Row
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.pictures.token_types import TokenTypes
from apportion_backends.torch.pictures.tower import Tower
from apportion_backends.torch.pictures.vision_inputs import PictureProcessor

__all__ = ["PictureReader", "placeholder_id", "taken", "target_places"]


class PictureReader:
    """Makes a model's arguments of rows with pictures.

    Args:
        model: the model, in ``scoring_mode`` while it reads.
        processor: the model's processor.
        types: the numbers that the model reads for each token.
        budget: bytes of features that are kept from batch to batch.
        tokens_at_once: number of patches to encode in one forward pass.

    Attributes:
        tower: encodes pictures.
    """

    def __init__(
        self, model: PreTrainedModel, processor: Any, types: TokenTypes, *, budget: int, tokens_at_once: int
    ) -> None:
        self._model = model
        self._device = input_device(model)
        self._types = types
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

    def from_features(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Arguments for rows, padded on the right, whose pictures have been encoded.

        Raises:
            ScoreError: the tokens of a row do not fit its pictures.
        """
        media = list(chain.from_iterable(row.media for row in rows))
        arguments = self._of_tokens(rows)
        if not media:
            return arguments
        known = self.tower(media)
        for row in rows:
            wanted = sum(known[one].tokens for one in row.media)
            found = row.read.count(self._token)
            if wanted != found:
                raise ScoreError(
                    f"A prompt has {found} placeholder tokens for pictures, but its {len(row.media)} pictures have "
                    f"{wanted} features. Pictures of a prompt must all have the size of those it was written with."
                )
        return arguments | self.tower.arguments([known[one] for one in media])

    def prompt(self, item: ModelInput) -> dict[str, Any]:
        """Arguments for a prompt that the model continues."""
        return self.from_pixels(Row(item.ids, item.ids[-1:], item.media))

    def _of_tokens(self, rows: Sequence[Row]) -> dict[str, Any]:
        ids, mask = self._padded([row.read for row in rows])
        return {"input_ids": ids, "attention_mask": mask, **self._types(ids, rows)}

    def _padded(self, rows: Sequence[tuple[int, ...]]) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
        """Ids, and a mask of those that are not padding, which must not look like a picture."""
        lengths = torch.tensor([len(row) for row in rows])
        pad = next(i for i in range(len(self._types.image_ids) + 2) if i not in (*self._types.image_ids, self._token))
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

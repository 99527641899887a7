"""Prefixes of rows that have the same pictures: encoded once, through the pictures or up to them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from jaxtyping import Int
from torch import Tensor
from transformers import Cache, PreTrainedModel

from apportion.protocols.row import Media, ModelInput, Row
from apportion.scoring.prefix_tree import common_prefix
from apportion_backends.torch.inputs import cache_argument
from apportion_backends.torch.pictures.reader import PictureReader
from apportion_backends.torch.prefix import empty_cache, part_of, read_only

__all__ = ["PicturePrefixes"]

Ids = tuple[int, ...]


class PicturePrefixes:
    """The longest prefix encoded so far, with its pictures; others are read from it or extend it.

    Args:
        model: whose keys and values are kept. They are valid as long as its weights are.
        reader: makes the model's arguments.
    """

    def __init__(self, model: PreTrainedModel, reader: PictureReader) -> None:
        self._model, self._reader = model, reader
        # One attribute, because several threads may read with one model.
        self._encoded: tuple[Ids, tuple[Media, ...], Cache | None] = ((), (), None)

    @property
    def kept(self) -> ModelInput | None:
        """The prefix that is encoded, with all pictures of its rows."""
        ids, media, cache = self._encoded
        return ModelInput(ids, media) if cache is not None else None

    def rest(self, rows: Sequence[Row], length: int) -> tuple[dict[str, Any], int] | None:
        """Arguments by which rows are read after their common prefix, and the prefix's length.

        It may be shorter than asked for, because it must not end inside a picture. ``None`` if nothing is left of it,
        or if the model keeps another kind of state.

        Args:
            rows: rows with the same pictures.
            length: number of tokens that all of them share.
        """
        first = rows[0]
        length = self._outside_pictures(first, length)
        cache = self._get(first, length) if length else None
        if cache is None:
            return None
        arguments = self._after(rows, length, None)
        return arguments | {cache_argument(self._model.base_model): cache, "use_cache": True}, length

    def _get(self, row: Row, length: int) -> Cache | None:
        """A read-only cache of the first tokens of a row; ``None`` if the model keeps another kind of state."""
        encoded, media, cache = self._encoded
        ids = row.prompt[:length]
        known = common_prefix(encoded, ids) if media == row.media else 0
        if known < length:
            # What is continued must not end inside a picture either.
            known = self._outside_pictures(row, known)
        if cache is None or known < length:
            start = None if cache is None or known == 0 else part_of(cache, known)
            encoded, cache = ids, self._encode(row, length, start, known if start is not None else 0)
            self._encoded = encoded, row.media, cache
        return cache if cache is None or len(encoded) == length else part_of(cache, length)

    def _encode(self, row: Row, length: int, start: Cache | None, known: int) -> Cache | None:
        cache = empty_cache(self._model, start)
        arguments = self._after([row], known, length)
        kept: dict[str, Any] = {cache_argument(self._model.base_model): cache}
        self._model.base_model(**arguments, use_cache=True, return_dict=True, **kept)
        return read_only(cache, length)

    def _after(self, rows: Sequence[Row], start: int, stop: int | None) -> dict[str, Any]:
        """Arguments for the tokens from ``start`` on, up to ``stop``, with the pictures among them."""
        whole = self._reader.from_features(rows, places=(start, stop))
        ids: Int[Tensor, "B L"] = whole["input_ids"]
        found = dict(whole)
        positions = self._positions(rows, whole)
        if positions is not None:
            found["position_ids"] = positions[..., start:stop]
        found["input_ids"] = ids[:, start:stop]
        found["attention_mask"] = whole["attention_mask"][:, :stop]
        if "mm_encoder_outputs" not in found:
            # Types of tokens matter where pictures are read; positions have been counted.
            for name in self._reader.types.names:
                found.pop(name)
        else:
            for name in self._reader.types.names:
                found[name] = whole[name][:, start:stop]
        return found

    def _positions(self, rows: Sequence[Row], whole: dict[str, Any]) -> Tensor | None:
        """Positions of all tokens of the rows, where they depend on pictures; ``None`` where they are counted."""
        index = getattr(self._model.base_model, "get_rope_index", None)
        if index is None:
            return None
        geometry = self._reader.geometry([one for row in rows for one in row.media])
        names = {name: whole[name] for name in self._reader.types.names}
        found: Tensor = index(whole["input_ids"], attention_mask=whole["attention_mask"], **names, **geometry)[0]
        return found

    def _outside_pictures(self, row: Row, length: int) -> int:
        """The largest number of tokens up to this one that does not end inside a picture."""
        borders = {0, *accumulate(self._reader.tokens_of(row.media))}
        seen = self._reader.placeholders(row.prompt[:length])
        while length and seen not in borders:
            length -= 1
            seen -= self._reader.placeholders(row.prompt[length : length + 1])
        return length

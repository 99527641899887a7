"""Runs a decoder of others: padded batches, with the keys and values of a prefix that is read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from apportion.errors import ModelError
from apportion.scoring.prefix_tree import common_prefix
from apportion_backends.onnxruntime.decoders.signature import ROWS, Signature

if TYPE_CHECKING:
    import onnxruntime as ort

__all__ = ["DecoderGraph"]

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A prefix and its keys and values, for one row; and the same for several rows, as they were last needed."""

    ids: Tokens
    past: Mapping[str, Any]
    rows: int = 1
    spread: Mapping[str, Any] | None = None


class DecoderGraph:
    """A decoder in ONNX Runtime.

    Args:
        session: the graph, whose head may be cut.
        signature: its inputs and outputs.
        cut: the head reads only the rows and positions in a further input.
        past_in_batches: several rows may be read after a prefix at once. GroupQueryAttention takes one.
    """

    def __init__(
        self, session: ort.InferenceSession, signature: Signature, *, cut: bool, past_in_batches: bool = True
    ) -> None:
        self._session = session
        self.signature = signature
        self.cut = cut
        self.past_in_batches = past_in_batches
        self._prefix: _Prefix | None = None

    def varied(self, *, past_in_batches: bool) -> DecoderGraph:
        """The same graph, with one row after a prefix at a time or several."""
        return DecoderGraph(self._session, self.signature, cut=self.cut, past_in_batches=past_in_batches)

    @property
    def kept(self) -> Tokens:
        """The prefix whose keys and values are kept."""
        return () if self._prefix is None else self._prefix.ids

    def release(self) -> None:
        """Discard the prefix."""
        self._prefix = None

    def logits(
        self, rows: Sequence[Tokens], wanted: Sequence[Sequence[int]], prefix: Tokens = ()
    ) -> list[Float[np.ndarray, "T V"]]:
        """Logits of rows at some of their positions, in fp32.

        Args:
            rows: tokens of each row, the prefix included.
            wanted: positions in each row, behind the prefix.
            prefix: what all rows begin with, read once and kept.
        """
        reads = [row[len(prefix) :] for row in rows]
        places = [[at - len(prefix) for at in ats] for ats in wanted]
        if prefix and not self.past_in_batches:
            past = self._past_of(prefix, 1)
            return [self._run([read], len(prefix), past, [ats])[0] for read, ats in zip(reads, places, strict=True)]
        past = self._past_of(prefix, len(rows)) if prefix else self._empty(len(rows))
        flat, _ = self._run(reads, len(prefix), past, places)
        ends = np.cumsum([len(ats) for ats in wanted])
        return list(np.split(flat, ends[:-1]))

    def next_logits(self, ids: Tokens) -> Float[np.ndarray, " V"]:
        """Logits of the token after these; what was read for the call before is not read again."""
        if not self.signature.past:
            (found,) = self.logits([ids], [[len(ids) - 1]])
        else:
            found = self._extend(ids, self._known(ids[:-1]))
        last: np.ndarray = found[-1]
        return last

    def _past_of(self, prefix: Tokens, rows: int) -> Mapping[str, Any]:
        """Keys and values of a prefix for each row; made and bound once."""
        known = self._known(prefix)
        if known < len(prefix):
            self._extend(prefix, known)
        kept = self._prefix
        assert kept is not None
        if len(kept.ids) > len(prefix):
            kept = _Prefix(prefix, {name: _first(value, len(prefix)) for name, value in kept.past.items()})
        if kept.rows != rows or kept.spread is None:
            spread = {name: _repeated(value, rows) for name, value in kept.past.items()}
            kept = replace(kept, rows=rows, spread=spread)
        self._prefix = kept
        assert kept.spread is not None
        return kept.spread

    def _known(self, ids: Tokens) -> int:
        return common_prefix(self.kept, ids)

    def _extend(self, ids: Tokens, known: int) -> Float[np.ndarray, "1 V"]:
        """Read tokens after the first ``known`` of what is kept, and keep all; the logits after the last."""
        if self._prefix is None or known == 0:
            known, past = 0, self._empty(1)
        else:
            past = {name: _first(value, known) for name, value in self._prefix.past.items()}
        found, present = self._run([ids[known:]], known, past, [[len(ids) - known - 1]], keep=True)
        self._prefix = _Prefix(ids, present)
        return found

    def _empty(self, rows: int) -> Mapping[str, Any]:
        signature = self.signature
        shape = (rows, signature.heads, 0, signature.head_size)
        return {name: np.empty(shape, dtype=signature.past_dtype) for name in signature.past}

    def _run(
        self,
        reads: Sequence[Tokens],
        before: int,
        past: Mapping[str, Any],
        places: Sequence[Sequence[int]],
        *,
        keep: bool = False,
    ) -> tuple[Float[np.ndarray, "R V"], dict[str, Any]]:
        """Logits at places of right-padded rows, and keys and values if they are kept."""
        signature = self.signature
        width = max(map(len, reads))
        ids = np.zeros((len(reads), width), dtype=signature.ids)
        mask = np.zeros((len(reads), before + width), dtype=signature.mask or np.int64)
        for i, read in enumerate(reads):
            ids[i, : len(read)] = read
            mask[i, : before + len(read)] = 1
        feeds: dict[str, Any] = {"input_ids": ids, **past}
        if signature.mask is not None:
            feeds["attention_mask"] = mask
        if signature.positions is not None:
            positions = np.arange(before, before + width, dtype=signature.positions)
            feeds["position_ids"] = np.tile(positions, (len(reads), 1))
        rows = np.array([(i, at) for i, ats in enumerate(places) for at in ats], dtype=np.int64).reshape(-1, 2)
        if self.cut:
            feeds[ROWS] = rows
        names = ["logits", *(signature.past.values() if keep else ())]
        values = {name: _value(array) for name, array in feeds.items()}
        logits, *present = (one.numpy() for one in self._session.run_with_ort_values(names, values))
        if not self.cut and logits.shape[:2] != ids.shape:
            raise ModelError(
                f"The decoder returns logits of the shape {list(logits.shape)} for {ids.shape[0]} × {ids.shape[1]} "
                "tokens. Logits of every position are needed; export it without keeping only the last."
            )
        found = logits[0] if self.cut else logits[rows[:, 0], rows[:, 1]]
        return found.astype(np.float32, copy=False), dict(zip(signature.past, present, strict=False))


def _first(value: np.ndarray, tokens: int) -> np.ndarray:
    return value[:, :, :tokens]


def _repeated(value: np.ndarray, rows: int) -> Any:
    """The keys or values of one row for several, which every run reads in place."""
    return _value(np.repeat(value, rows, axis=0))


def _value(array: Any) -> Any:
    import onnxruntime as ort

    if isinstance(array, ort.OrtValue):
        return array
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

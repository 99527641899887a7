"""Guard over a decoder: batches with longer rows than those that were tried are compared with rows alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from apportion_backends.onnxruntime.decoders.graph import DecoderGraph, Tokens
from apportion_backends.onnxruntime.decoders.probe import LENGTH, allowed_difference, same_logits

__all__ = ["GuardedDecoder"]

APART = "this model gives other numbers in a batch with a row of {width} tokens; rows were scored one at a time"


class GuardedDecoder:
    """A decoder whose batches give the numbers of rows alone.

    A graph may depend on the length of the longest row, as rotary embeddings that are scaled by it do. So the first
    batch with longer rows than before is checked: its shortest, its longest and its last row are read alone, too.

    Args:
        graph: the decoder.
    """

    def __init__(self, graph: DecoderGraph) -> None:
        self._graph = graph
        self._certain = LENGTH
        self._note = ""

    @property
    def graph(self) -> DecoderGraph:
        """The decoder."""
        return self._graph

    @property
    def apart(self) -> bool:
        """True if a batch gave other numbers than rows alone."""
        return bool(self._note)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for results."""
        return (self._note,) if self._note else ()

    def logits(
        self, rows: Sequence[Tokens], wanted: Sequence[Sequence[int]], prefix: Tokens = ()
    ) -> list[Float[np.ndarray, "T V"]]:
        """Logits of rows at some of their positions; see ``DecoderGraph.logits``."""
        if self.apart:
            return self._alone(rows, wanted)
        found = self._graph.logits(rows, wanted, prefix)
        lengths = [len(row) for row in rows]
        width = max(lengths)
        if width > self._certain and (prefix or len(rows) > 1):
            for i in dict.fromkeys((lengths.index(min(lengths)), lengths.index(width), len(rows) - 1)):
                (alone,) = self._graph.logits([rows[i]], [wanted[i]])
                if not same_logits(found[i], alone, allowed_difference(self._graph, alone)):
                    self._note = APART.format(width=width)
                    return self._alone(rows, wanted)
            self._certain = width
        return found

    def _alone(self, rows: Sequence[Tokens], wanted: Sequence[Sequence[int]]) -> list[Float[np.ndarray, "T V"]]:
        return [self._graph.logits([row], [ats])[0] for row, ats in zip(rows, wanted, strict=True)]

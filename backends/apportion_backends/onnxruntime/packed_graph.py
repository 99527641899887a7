"""Runs the graph of an export. NumPy and ONNX Runtime are all that it needs: no PyTorch, no ``transformers``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from apportion.protocols.row import ModelInput, Row
from apportion.scoring.prefix_tree import common_prefix, reused_tokens, shared_prompt
from apportion_backends.onnxruntime.feeds import NOTHING, feeds_of
from apportion_backends.onnxruntime.manifest import GRAPH, WEIGHTS, Head, Sizes
from apportion_backends.onnxruntime.providers import Provider, open_graph
from apportion_backends.packing import LEAST_TRUNK, Pack, lay_out

__all__ = ["PackedGraph"]

CHUNK = 512
"""Tokens of one row that are read at once; what comes before them is read first, so that scores stay small."""
SHARED_AHEAD = 128
"""Tokens that several rows share before they are read in a call of their own, so that no row gathers their keys."""
PIECE = 16
"""Queries in a piece of a segment. Every piece gathers the keys of its path; padding grows with its size."""
NEW = ("new_keys", "new_values")
"""Outputs that the next call reads."""
ANY = np.zeros(1, dtype=np.int64)
"""A node or token whose scores nobody reads."""
GATHERED_BYTES = 32 * 2**20
"""Keys and values of one layer that may be gathered before pieces get larger."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """Tokens whose keys and values are kept, on the provider's device."""

    ids: tuple[int, ...]
    keys: Any
    values: Any


class PackedGraph:
    """The graph of an export in ONNX Runtime.

    Args:
        folder: folder of the export.
        sizes: sizes of the model.
        head: its output layer.
        provider: the execution provider.
        threads: threads for one operation; ``None`` leaves the choice to ONNX Runtime.

    Raises:
        ModelError: the graph cannot be loaded.
        BackendError: the provider cannot be used.
    """

    def __init__(self, folder: Path, sizes: Sizes, head: Head, provider: Provider, threads: int | None) -> None:
        self._session = open_graph(folder / GRAPH, provider, threads)
        self._sizes, self._head = sizes, head
        self._device = (provider.device if provider.device in ("cuda", "dml") else "cpu", provider.index)
        self._weights = folder / WEIGHTS
        self._kept: _Kept | None = None

    @property
    def kept(self) -> tuple[int, ...]:
        """Tokens from which the next batch may continue."""
        return () if self._kept is None else self._kept.ids

    def release(self) -> None:
        """Discard what is kept."""
        self._kept = None

    def log_probs(self, rows: Sequence[Row]) -> Float[np.ndarray, "B T"]:
        """Log-probabilities of the target of each row; rows are read as a prefix tree. 0 beyond a row's target.

        Args:
            rows: rows in the order of their prefix tree; another order gives the same values, but reads more tokens.
        """
        widest = max(len(row.target) for row in rows)
        return np.concatenate([self._scored(part, self._next(part), widest) for part in self._calls(rows)])

    def plain_log_probs(self, rows: Sequence[Row], prefix: int) -> Float[np.ndarray, "B T"]:
        """The same, each row read whole after a prefix that all share.

        Args:
            rows: rows in any order.
            prefix: number of tokens that all prompts begin with, and that are read once.
        """
        before = rows[0].prompt[:prefix]
        if self.kept[:prefix] != before:
            self._advance(before)
        pack = lay_out(
            rows, before, least_trunk=LEAST_TRUNK, piece=self._piece(rows, [prefix] * len(rows)), share=False
        )
        return self._scored(rows, pack, max(len(row.target) for row in rows), keep=False)

    def states(self, rows: Sequence[Row]) -> Float[np.ndarray, "B T D"]:
        """Last hidden states at the positions that predict the target of each row; any number beyond."""
        widest, found = max(len(row.target) for row in rows), []
        for part in self._calls(rows):
            pack = self._next(part)
            out = self.run(pack, reads=pack.predicts.ravel(), outputs=("states", *NEW))
            self._keep(part, out)
            states = out["states"].numpy().reshape(*pack.predicts.shape, -1)
            found.append(np.pad(states, ((0, 0), (0, widest - states.shape[1]), (0, 0)), mode="edge"))
        return np.concatenate(found)

    def logits(self, states: Float[np.ndarray, "*R D"]) -> Float[np.ndarray, "*R V"]:
        """Logits of last hidden states, by the head in the file of weights."""
        found: np.ndarray = states @ self._read(self._head.offset, (self._head.rows, self._sizes.hidden)).T
        if self._head.bias is not None:
            found += self._read(self._head.bias, (self._head.rows,))
        cap = self._head.soft_cap
        if cap is not None:
            found = np.float32(cap) * np.tanh(found / np.float32(cap))
        return found

    def _read(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.memmap(self._weights, dtype="<f4", mode="r", offset=offset, shape=shape)

    def _calls(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """Rows that are read in one call; long beginnings are read before, in calls of their own."""
        first = 0
        for i, (row, depth) in enumerate(zip(rows, self._depths(rows), strict=True)):
            if len(row.read) - depth <= CHUNK:
                continue
            if i > first:
                yield rows[first:i]
            beginning = row.read[: min(len(row.prompt) - 1, len(row.read) - CHUNK)]
            if len(beginning) > common_prefix(self.kept, beginning):
                self._advance(beginning)
            first = i
        rest = rows[first:]
        shared = min((shared_prompt(rest[0], row) for row in rest[1:]), default=0)
        if len(rest) > 2 and shared - common_prefix(self.kept, rest[0].prompt) >= SHARED_AHEAD:
            self._advance(rest[0].prompt[:shared])
        yield rest

    def _advance(self, ids: tuple[int, ...]) -> None:
        """Read tokens, and keep their keys and values."""
        known = min(common_prefix(self.kept, ids), len(ids) - 1)
        for end in (*range(known + CHUNK, len(ids), CHUNK), len(ids)):
            part = [Row(ids[:end], ids[-1:])]
            self._keep(part, self.run(lay_out(part, self.kept, least_trunk=1, piece=CHUNK), outputs=NEW))

    def _next(self, rows: Sequence[Row]) -> Pack:
        """Layout of rows that continue from the kept tokens."""
        return lay_out(rows, self.kept, least_trunk=LEAST_TRUNK, piece=self._piece(rows, self._depths(rows)))

    def _depths(self, rows: Sequence[Row]) -> list[int]:
        return reused_tokens(rows, ModelInput(self.kept) if self.kept else None)

    def _piece(self, rows: Sequence[Row], depths: Sequence[int]) -> int:
        """Queries in a piece: few, unless many pieces would gather long paths."""
        longest = max(len(row.read) for row in rows)
        place = 4 * longest * sum(heads * size for heads, size in (self._sizes.key, self._sizes.value))
        piece = PIECE
        while piece < CHUNK:
            pieces = sum(-(-(len(row.read) - depth) // piece) for row, depth in zip(rows, depths, strict=True))
            if pieces * place <= GATHERED_BYTES:
                break
            piece *= 2
        return piece

    def _scored(self, rows: Sequence[Row], pack: Pack, widest: int, *, keep: bool = True) -> Float[np.ndarray, "B T"]:
        lengths = np.array([[len(row.target)] for row in rows])
        there = np.arange(widest) < lengths
        targets = np.array([token for row in rows for token in row.target])
        predicts = pack.predicts[there[:, : pack.predicts.shape[1]]]
        out = self.run(pack, predicts=predicts, targets=targets, outputs=("log_probs", *NEW))
        if keep:
            self._keep(rows, out)
        found = np.zeros(there.shape, dtype=np.float32)
        found[there] = out["log_probs"].numpy()
        return found

    def _keep(self, rows: Sequence[Row], out: Mapping[str, Any]) -> None:
        self._kept = _Kept(rows[-1].read, out["new_keys"], out["new_values"])

    def run(
        self,
        pack: Pack,
        *,
        outputs: Sequence[str],
        predicts: np.ndarray = ANY,
        targets: np.ndarray = ANY,
        reads: np.ndarray = ANY,
    ) -> dict[str, Any]:
        """Run the graph on a packed batch that continues from the kept tokens; keys and values stay on their device.

        Args:
            pack: layout of the batch, as a single group with a mask.
            outputs: names of outputs.
            predicts: nodes whose next token is scored.
            targets: these tokens.
            reads: nodes whose last hidden states are returned as ``states``.

        Returns:
            The ``OrtValue`` of each output.
        """
        kept = self._kept if pack.reused else None
        feeds = feeds_of(pack, NOTHING + len(kept.ids) if kept else NOTHING)
        feeds |= {"predicts": predicts, "targets": targets, "reads": reads}
        # The binding holds addresses only, so the arrays must live until the end of the run.
        arrays = {name: np.ascontiguousarray(indices, dtype=np.int64) for name, indices in feeds.items()}
        if kept is None:
            for name, (heads, size) in self._sizes.past.items():
                arrays[name] = np.zeros((self._sizes.layers, heads, NOTHING, size), dtype=np.float32)
        binding = self._session.io_binding()
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        if kept is not None:
            binding.bind_ortvalue_input("keys", kept.keys)
            binding.bind_ortvalue_input("values", kept.values)
        for name in outputs:
            binding.bind_output(name, *(self._device if name in NEW else ("cpu", 0)))
        self._session.run_with_iobinding(binding)
        return dict(zip(outputs, binding.get_outputs(), strict=True))

"""The session of a decoder of others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.files import file_digest
from apportion.protocols.backend import Capability, Layout, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion_backends.onnxruntime.decoders.files import DecoderFiles
from apportion_backends.onnxruntime.decoders.guard import GuardedDecoder
from apportion_backends.onnxruntime.decoders.probe import DecoderTraits
from apportion_backends.onnxruntime.greedy import continued
from apportion_backends.onnxruntime.open_graph import OpenGraph
from apportion_backends.onnxruntime.providers import Provider
from apportion_backends.onnxruntime.sizes import BATCH_OVERHEAD, batch_tokens, memory_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["DecoderSession"]

ALWAYS = frozenset({Capability.LOG_PROBS, Capability.LOGITS, Capability.GENERATE})
SUMMED = 2**24
"""Logits whose exponentials are in memory at once."""


class DecoderSession:
    """A decoder of others in ONNX Runtime.

    Args:
        graph: the decoder.
        files: its files.
        traits: layouts that give the right numbers.
        vocabulary: number of token ids.
        tokenizer: the model's tokenizer.
        provider: the execution provider.
        memory_budget: bytes that a batch may take.
        dtype: what the graph computes with.
        notes: sentences for results.
    """

    def __init__(
        self,
        graph: GuardedDecoder,
        files: DecoderFiles,
        traits: DecoderTraits,
        vocabulary: int,
        tokenizer: PreTrainedTokenizerBase,
        provider: Provider,
        memory_budget: int | None,
        dtype: str,
        notes: tuple[str, ...],
    ) -> None:
        self._graph = OpenGraph(graph)
        self._files, self._provider, self._vocabulary = files, provider, vocabulary
        self._signature, self._cut = graph.graph.signature, graph.graph.cut
        self._digest: str | None = None
        self.tokenizer = tokenizer
        self.end_ids = files.end_ids
        self._layout = Layout(
            padding=traits.padding,
            prefix_sharing=traits.prefix_sharing,
            batch_tokens=batch_tokens(provider) if traits.batching else 1,
            batch_overhead=BATCH_OVERHEAD,
            prefix_rows=None if traits.past_in_batches else 1,
        )
        self._info = SessionInfo(
            backend="onnxruntime",
            device=provider.where,
            dtype=dtype,
            context_length=files.size("context_length", "max_position_embeddings", "n_positions"),
            memory_budget=memory_of(memory_budget),
            vocabulary=vocabulary,
            notes=notes,
            model=str(files.folder),
            weights_bytes=sum(path.stat().st_size for path in files.parts()),
        )

    @property
    def info(self) -> SessionInfo:
        """Device, precision and limits; notes say whether rows had to be scored one at a time."""
        graph = self._graph.now
        if graph is not None and graph.notes:
            self._info = replace(self._info, notes=tuple(dict.fromkeys((*self._info.notes, *graph.notes))))
        return self._info

    @property
    def layout(self) -> Layout:
        """The layouts that give the numbers of rows alone, as far as it is known."""
        graph = self._graph.now
        if graph is not None and graph.apart:
            return replace(self._layout, padding=False, prefix_sharing=False, batch_tokens=1)
        return self._layout

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Scores, logits, greedy generation, and shared prefixes where they give the numbers of rows alone."""
        return ALWAYS | ({Capability.PREFIX_CACHE} if self.layout.prefix_sharing else set())

    @property
    def kept(self) -> ModelInput | None:
        """The prefix from which the next batch continues."""
        graph = self._graph.now
        kept = graph.graph.kept if graph is not None and self.layout.prefix_sharing else ()
        return ModelInput(kept) if kept else None

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """Upper estimate of the memory of a row, in bytes."""
        files, read = self._files, suffix + targets
        hidden = files.size("hidden_size", "n_embd") or self._signature.heads * self._signature.head_size
        inner = files.size("intermediate_size", "n_inner") or 4 * hidden
        heads = files.size("num_attention_heads", "n_head") or self._signature.heads
        layer = read * (8 * hidden + 4 * inner) + 3 * heads * read * (prefix + read)
        logits = 2 * (targets if self._cut else read) * self._vocabulary
        return 4 * (layer + logits) + 2 * (prefix + read) * self._signature.past_bytes

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the target in every row, in fp32.

        Raises:
            BatchTooLargeError: memory ran out.
            ScoreError: the graph fails.
        """
        found = np.zeros((len(batch.rows), batch.n_targets), dtype=np.float32)
        for i, (row, logits) in enumerate(zip(batch.rows, self._logits(batch), strict=True)):
            found[i, : len(row.target)] = _log_probs(logits, np.array(row.target))
        return torch.from_numpy(found)

    def logits(self, batch: ScoringBatch, rows: int) -> Iterator[Float[Tensor, "b T V"]]:
        """Logits before each target token, in fp32, a few rows at a time; one forward pass for the whole batch.

        Raises:
            BatchTooLargeError: memory ran out.
            ScoreError: the graph fails.
        """
        found = self._logits(batch)
        for first in range(0, len(found), rows):
            part = found[first : first + rows]
            padded = [np.pad(one, ((0, batch.n_targets - len(one)), (0, 0)), mode="edge") for one in part]
            yield torch.from_numpy(np.stack(padded))

    def generate(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> tuple[int, ...]:
        """The most likely continuation, token by token; 25 tokens unless ``options`` say otherwise.

        Raises:
            InputError: an option other than ``max_new_tokens``, or one that would sample.
        """
        with self._graph.running() as graph:
            return continued(graph.graph.next_logits, prompt.ids, options, self.end_ids, self.tokenizer, room, stop)

    def fingerprint(self) -> str:
        """A hash of the files."""
        if self._digest is None:
            hashes = [file_digest(path) for path in self._files.parts()]
            self._digest = hashlib.blake2b(repr(hashes).encode(), digest_size=16).hexdigest()
        return self._digest

    def checksum(self) -> str:
        """A hash of the files, and what runs them."""
        return f"{self._provider.identity} {self.fingerprint()}"

    def release(self) -> None:
        """Discard the prefix that is kept."""
        graph = self._graph.now
        if graph is not None:
            graph.graph.release()

    def close(self) -> None:
        """Release the graph; idempotent."""
        self._graph.close()

    def _logits(self, batch: ScoringBatch) -> list[Float[np.ndarray, "T V"]]:
        """Logits of each row before its target tokens."""
        rows: Sequence[Row] = batch.rows
        wanted = [range(len(row.prompt) - 1, len(row.read)) for row in rows]
        # The last token of a prompt predicts, so it is read with its row.
        with self._graph.running() as graph:
            return graph.logits([row.read for row in rows], wanted, batch.prefix)


def _log_probs(logits: Float[np.ndarray, "T V"], target: np.ndarray) -> Float[np.ndarray, " T"]:
    """``log_softmax`` at the target ids, a few positions at a time."""
    found = np.empty(len(target), dtype=np.float32)
    at_once = max(1, SUMMED // logits.shape[1])
    for first in range(0, len(target), at_once):
        part = logits[first : first + at_once]
        most = part.max(1)
        total = most + np.log(np.exp(part - most[:, None]).sum(1))
        chosen = target[first : first + at_once]
        found[first : first + at_once] = part[np.arange(len(part)), chosen] - total
    return found

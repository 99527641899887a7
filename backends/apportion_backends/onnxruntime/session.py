"""The session of an export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import BackendError
from apportion.protocols.backend import Capability, Layout, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion_backends.onnxruntime.greedy import continued
from apportion_backends.onnxruntime.manifest import SLICE, Manifest
from apportion_backends.onnxruntime.open_graph import OpenGraph
from apportion_backends.onnxruntime.packed_graph import CHUNK, PIECE, PackedGraph
from apportion_backends.onnxruntime.providers import Provider
from apportion_backends.onnxruntime.sizes import BATCH_OVERHEAD, batch_tokens, memory_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ExportSession"]

SAME = 1e-3
"""Largest difference in nats from what the graph gave when it was exported."""
ROUNDED = 1.0
"""The same for providers that compute in bf16, which rounds to 3 digits. SmolLM2 differs by 0.1."""
NOTICEABLE = 1e-4
"""Difference that results mention."""


class ExportSession:
    """An export in ONNX Runtime.

    Args:
        graph: the graph.
        manifest: its manifest.
        folder: its folder.
        tokenizer: the model's tokenizer.
        provider: the execution provider.
        memory_budget: bytes that a batch may take.

    Raises:
        BackendError: the graph gives other numbers here than where it was exported.
    """

    capabilities = frozenset({Capability.LOG_PROBS, Capability.LOGITS, Capability.PREFIX_CACHE, Capability.GENERATE})

    def __init__(
        self,
        graph: PackedGraph,
        manifest: Manifest,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        provider: Provider,
        memory_budget: int | None,
    ) -> None:
        self._graph = OpenGraph(graph)
        self._manifest = manifest
        self._provider = provider
        self.tokenizer = tokenizer
        self.end_ids = manifest.end_ids
        self.layout = Layout(
            padding=True,
            prefix_sharing=True,
            batch_tokens=batch_tokens(provider),
            batch_overhead=BATCH_OVERHEAD,
            packing=True,
        )
        self._info = SessionInfo(
            backend="onnxruntime",
            device=provider.where,
            dtype=provider.dtype if manifest.precision == "fp32" else manifest.precision,
            context_length=manifest.context_length,
            memory_budget=memory_of(memory_budget),
            vocabulary=manifest.vocabulary,
            notes=manifest.notes,
            model=manifest.model,
            weights_bytes=manifest.weights_bytes,
        )
        self._check(folder)

    @property
    def info(self) -> SessionInfo:
        """Device, precision and limits."""
        return self._info

    @property
    def kept(self) -> ModelInput | None:
        """The last packed row or the prefix, from which the next batch continues."""
        graph = self._graph.now
        return ModelInput(graph.kept) if graph is not None and graph.kept else None

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """Upper estimate of the memory of a row, in bytes."""
        sizes, read = self._manifest.sizes, suffix + targets
        kept = sum(heads * size for heads, size in (sizes.key, sizes.value))
        # Two planes of 8-bit numbers are computed from three copies in fp32.
        copies = 1 if self._manifest.precision == "fp32" else 3
        layer = copies * read * (8 * sizes.hidden + 4 * sizes.inner)
        scores = 4 * sizes.heads * min(read, CHUNK) * (prefix + read)
        gathered = -(-read // PIECE) * min(prefix + read, 4 * CHUNK) * kept
        past = 2 * sizes.layers * (prefix + read) * kept
        slices = 4 * targets * min(self._manifest.head.rows, SLICE)
        return 4 * (layer + scores + gathered + past + slices)

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the target in every row, in fp32.

        Raises:
            BatchTooLargeError: memory ran out.
        """
        with self._graph.running() as graph:
            if batch.packed:
                found = graph.log_probs(batch.rows)
            else:
                found = graph.plain_log_probs(batch.rows, batch.prefix_length)
        return torch.from_numpy(found)

    def logits(self, batch: ScoringBatch, rows: int) -> Iterator[Float[Tensor, "b T V"]]:
        """Logits before each target token, in fp32, a few rows at a time; one forward pass for the whole batch.

        Raises:
            BatchTooLargeError: memory ran out.
        """
        with self._graph.running() as graph:
            states = graph.states(batch.rows)
        for first in range(0, len(states), rows):
            yield torch.from_numpy(graph.logits(states[first : first + rows]))

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

            def logits(ids: tuple[int, ...]) -> np.ndarray:
                found: np.ndarray = graph.logits(graph.states([Row(ids, ids[-1:])])[0, 0])
                return found

            return continued(logits, prompt.ids, options, self.end_ids, self.tokenizer, room, stop)

    def fingerprint(self) -> str:
        """A hash of the files."""
        return self._manifest.digest

    def checksum(self) -> str:
        """A hash of the files, and what runs them."""
        return f"{self._provider.identity} {self._manifest.digest}"

    def release(self) -> None:
        """Discard the keys and values that are kept."""
        graph = self._graph.now
        if graph is not None:
            graph.release()

    def close(self) -> None:
        """Release the graph; idempotent."""
        self._graph.close()

    def _check(self, folder: Path) -> None:
        """Score the manifest's check rows once more.

        Other providers and instruction sets may compute otherwise: 8-bit products saturate on CPUs without VNNI.
        """
        checks = self._manifest.checks
        with self._graph.running() as graph:
            found = graph.log_probs([Row(check.prompt, check.target) for check in checks])
            graph.release()
        worst = 0.0
        for check, scores in zip(checks, found, strict=True):
            difference = float(np.abs(scores[: len(check.target)] - np.array(check.log_probs)).max())
            worst = difference if np.isnan(difference) else max(worst, difference)
        exact = self._provider.dtype == "float32"
        if not worst <= (SAME if exact else ROUNDED):
            raise BackendError(
                f"The export {str(folder)!r} gives other numbers here than where it was made: up to {worst:.2g} nats "
                f"apart, with the execution provider {self._provider.name!r}. Export the model on this machine, or use "
                "another provider."
            )
        if worst > NOTICEABLE:
            how = "" if exact else f" ({self._provider.name} computes in {self._provider.dtype})"
            note = (
                f"scores differ by up to {worst:.1e} nats from those on the machine where the model was exported{how}"
            )
            self._info = replace(self._info, notes=(*self._info.notes, note))

"""Backends, sessions, and the batch they score.

A backend loads a model into a session; a session scores batches. All sessions are held to one
contract: the numbers of one-row-at-a-time scoring in fp32 or better.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.protocols.row import Row

if TYPE_CHECKING:
    from apportion.models.load import LoadedModel

__all__ = [
    "Available",
    "Backend",
    "BackendInfo",
    "Capability",
    "Layout",
    "ScoringBatch",
    "Session",
    "SessionInfo",
    "Unavailable",
    "WhiteBox",
]


class Capability(enum.Enum):
    """What a session can do; ``requires`` of a method and ``capabilities`` of a session speak these."""

    LOG_PROBS = "log_probs"
    LOGITS = "logits"
    GENERATE = "generate"
    GRADIENTS = "gradients"
    HIDDEN_STATES = "hidden_states"
    ATTENTIONS = "attentions"
    PREFIX_CACHE = "prefix_cache"
    IMAGES = "images"


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a backend is, known without loading anything.

    Attributes:
        name: the name users type.
        devices: device types it runs on (``"cpu"``, ``"cuda"``).
        capabilities: what its sessions can do at best; a session says what it does for its model.
        priority: ``backend="auto"`` takes the available backend of highest priority.
        summary: one line for listings.
    """

    name: str
    devices: tuple[str, ...]
    capabilities: frozenset[Capability]
    priority: int = 0
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Available:
    """The backend can be used here."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The backend cannot be used here: why, and what to install or do."""

    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """B rows to score: each is prefix + its suffix + its target.

    Attributes:
        prefix_ids: shared by every row and encoded once; empty for sessions without ``PREFIX_CACHE``.
        suffix_ids: the rest of each prompt, right-padded with any id.
        suffix_lengths: how much of each row of ``suffix_ids`` counts; at least 1.
        target_ids: the target of each row, right-padded with any id.
        target_lengths: how much of each row of ``target_ids`` counts; at least 1.
        packed: read each distinct beginning of the rows once; only for sessions whose layout says ``packing``.

    All tensors are on the CPU; the session moves them.
    """

    prefix_ids: Int[Tensor, " P"]
    suffix_ids: Int[Tensor, "B S"]
    suffix_lengths: Int[Tensor, " B"]
    target_ids: Int[Tensor, "B T"]
    target_lengths: Int[Tensor, " B"]
    packed: bool = False

    @property
    def n_rows(self) -> int:
        """B."""
        return self.suffix_ids.shape[0]

    @property
    def n_targets(self) -> int:
        """T, the length of the longest target."""
        return self.target_ids.shape[1]

    @property
    def rows(self) -> list[Row]:
        """Prompt and target of each row, as plain token ids."""
        prefix = tuple(self.prefix_ids.tolist())
        prompts, targets = (
            [tuple(row[:n]) for row, n in zip(ids.tolist(), lengths.tolist(), strict=True)]
            for ids, lengths in ((self.suffix_ids, self.suffix_lengths), (self.target_ids, self.target_lengths))
        )
        return [Row(prefix + prompt, target) for prompt, target in zip(prompts, targets, strict=True)]

    @property
    def first(self) -> Row:
        """The first of them."""
        prompt = self.suffix_ids[0, : int(self.suffix_lengths[0])]
        target = self.target_ids[0, : int(self.target_lengths[0])]
        return Row((*self.prefix_ids.tolist(), *prompt.tolist()), tuple(target.tolist()))

    @classmethod
    def of(
        cls,
        prompts: Sequence[tuple[int, ...]],
        prefix: tuple[int, ...],
        target: tuple[int, ...] | Sequence[tuple[int, ...]],
        *,
        packed: bool = False,
    ) -> ScoringBatch:
        """A batch of whole prompts that all begin with ``prefix``, followed by one target or each by its own."""
        alike = [part for part in target if isinstance(part, int)]
        targets = [tuple(alike)] * len(prompts) if alike else [part for part in target if isinstance(part, tuple)]
        suffix_ids, suffix_lengths = _padded([row[len(prefix) :] for row in prompts])
        return cls(torch.tensor(prefix, dtype=torch.long), suffix_ids, suffix_lengths, *_padded(targets), packed)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B S"], Int[Tensor, " B"]]:
    """Rows of token ids, right-padded with 0, and their lengths."""
    lengths = [len(row) for row in rows]
    ids = np.zeros((len(rows), max(lengths)), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return torch.from_numpy(ids), torch.tensor(lengths)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a session wants its rows laid out, as found by checking its model.

    Attributes:
        padding: rows of different lengths may share a batch, padded on the right; otherwise the prompts of a
            batch have one length, and its targets have.
        prefix_sharing: a prefix may be encoded once for all rows.
        batch_tokens: tokens a batch holds when the device is busy; more cost memory and gain nothing.
        batch_overhead: what one more forward costs, in tokens; a prefix is shared where it saves more.
        packing: batches may be ``packed``: the session reads each distinct beginning of the rows once. It keeps the
            keys and values of the last row's tokens, and says in its attribute ``kept`` which these are, so that the
            first row of the next packed batch goes on from there.
        packing_limit: how long rows may be that are packed; ``None`` for any length.
        packing_overhead: how much longer a token takes in a packed batch, as a share.
    """

    padding: bool
    prefix_sharing: bool
    batch_tokens: int
    batch_overhead: int = 0
    packing: bool = False
    packing_limit: int | None = None
    packing_overhead: float = 0.0


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Where and how a session runs, for results and error messages.

    Attributes:
        backend: the backend's name.
        device: such as ``"cpu"`` or ``"cuda:0"``.
        dtype: of the model's weights, such as ``"float32"``.
        context_length: the most tokens of prompt and target together, if the model has a limit.
        memory_budget: bytes that a batch may take besides the model.
        vocabulary: how many token ids the model knows; ``None`` if that cannot be told.
        notes: sentences on choices made for this model, shown in results.
    """

    backend: str
    device: str
    dtype: str
    context_length: int | None
    memory_budget: int
    vocabulary: int | None = None
    notes: tuple[str, ...] = field(default=())


@runtime_checkable
class WhiteBox(Protocol):
    """Access to a model's inside, for gradient and internals methods.

    A session whose capabilities include ``GRADIENTS``, ``HIDDEN_STATES`` or ``ATTENTIONS`` gives one.
    """

    @property
    def model(self) -> torch.nn.Module:
        """The model itself."""
        ...


@runtime_checkable
class Session(Protocol):
    """A model, loaded and ready to score. ``close`` may be called twice.

    Sessions that have ``LOGITS`` also have ``logits(batch, rows)``, which gives ``Float[b, T, V]`` a few rows at a
    time; those that have ``GENERATE`` also ``generate(ids, options) -> tuple[int, ...]``.

    Optional attributes, read when they exist; scores of a session without either are not cached:

    - ``model``: the ``torch.nn.Module`` that scores, itself and not what it was made from.
    - ``checksum``: ``str``, another one whenever other scores have to be expected.

    A session whose layout says ``packing`` has ``kept``: ``tuple[int, ...]``, the tokens that the next packed batch
    may go on from, or ``()``.
    """

    @property
    def info(self) -> SessionInfo:
        """Device, dtype and limits."""
        ...

    @property
    def layout(self) -> Layout:
        """How rows are to be laid out."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this session can do with this model."""
        ...

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """An upper estimate of the memory that one row takes while it is scored."""
        ...

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probability of every target token in every row, fp32 or better, on the CPU.

        What stands beyond the length of a row's target is not read by anybody.

        Raises:
            BatchTooLargeError: memory ran out; the caller halves the batch.
        """
        ...

    def release(self) -> None:
        """Forget what is kept from one batch to the next, such as prefixes; called at the end of each run."""
        ...

    def close(self) -> None:
        """Release the model; idempotent."""
        ...


@runtime_checkable
class LogitsSession(Session, Protocol):
    """A session with the capability ``LOGITS``."""

    def logits(self, batch: ScoringBatch, rows: int) -> Iterator[Float[Tensor, "b T V"]]:
        """Logits at the position before each target token, fp32 or better, on the session's device.

        Args:
            batch: what to score.
            rows: how many rows are handed over at once (fewer at the end), in their order.

        Raises:
            BatchTooLargeError: memory ran out; the caller halves the batch.
        """
        ...


@runtime_checkable
class GenerateSession(Session, Protocol):
    """A session with the capability ``GENERATE``."""

    def generate(
        self, ids: tuple[int, ...], options: Mapping[str, object], seed: int, room: int | None = None
    ) -> tuple[int, ...]:
        """The model's continuation of a prompt, greedy unless ``options`` say otherwise.

        Args:
            ids: the prompt.
            options: of the generation.
            seed: for options that sample.
            room: the most tokens that fit into the context.

        Raises:
            InputError: an option that the model's generation does not know.
        """
        ...


@runtime_checkable
class WhiteBoxSession(Session, Protocol):
    """A session with the capability ``GRADIENTS``, ``HIDDEN_STATES`` or ``ATTENTIONS``."""

    def white_box(self) -> WhiteBox:
        """Access to the model's inside."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Loads models into sessions."""

    @property
    def info(self) -> BackendInfo:
        """Name, devices, capabilities, priority."""
        ...

    def availability(self) -> Available | Unavailable:
        """Whether it can be used here; cheap, and never raises."""
        ...

    def load(self, model: LoadedModel, *, device: str | None, dtype: str | None, memory_budget: int | None) -> Session:
        """A session for this model; ``None`` leaves the choice to the backend.

        Raises:
            BackendError: the device or dtype does not exist here.
            ModelError: the model cannot be scored.
        """
        ...

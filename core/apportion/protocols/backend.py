"""Backends, sessions, and what they say about themselves.

A backend opens a model in a session; a session scores batches. All sessions are held to one
contract: the numbers of one-row-at-a-time scoring in fp32 or better.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.batch import ScoringBatch
from apportion.protocols.model import ModelSpec
from apportion.protocols.row import ModelInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Available",
    "Backend",
    "BackendInfo",
    "Capability",
    "GenerateSession",
    "Layout",
    "LogitsSession",
    "Session",
    "SessionInfo",
    "Unavailable",
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
class Layout:
    """The way a session wants its rows laid out, as found by checking its model.

    Attributes:
        padding: rows of different lengths may share a batch, padded on the right; otherwise the prompts of a
            batch have one length, and its targets have.
        prefix_sharing: a prefix may be encoded once for all rows.
        batch_tokens: tokens a batch holds when the device is busy; more cost memory and gain nothing.
        batch_overhead: what one more forward costs, in tokens; a prefix is shared where it saves more.
        packing: batches may be ``packed``: the session reads each distinct beginning of the rows once, and keeps
            the keys and values of the last row's tokens, from which the next packed batch goes on.
        packing_limit: how long rows may be that are packed; ``None`` for any length.
        packing_overhead: how much longer a token takes in a packed batch, as a share.
        joint: prompt and target are read as one sequence. ``False`` for encoder–decoder models, which read the
            prompt in one place and the target in another: they share no prefixes, and each has a limit of its own.
        lanes: batches that may be under way at once. Above 1, ``log_probs`` and ``logits`` are called from that
            many threads, for batches that do not go on from one another.
    """

    padding: bool
    prefix_sharing: bool
    batch_tokens: int
    batch_overhead: int = 0
    packing: bool = False
    packing_limit: int | None = None
    packing_overhead: float = 0.0
    joint: bool = True
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Where and how a session runs, for results and error messages.

    Attributes:
        backend: the backend's name.
        device: such as ``"cpu"`` or ``"cuda:0"``.
        dtype: of the model's weights, such as ``"float32"``.
        context_length: the most tokens of prompt and target together, if the model has a limit; where the layout is
            not ``joint``, of each of them.
        memory_budget: bytes that a batch may take besides the model.
        vocabulary: how many token ids the model knows; ``None`` if that cannot be told.
        notes: sentences on choices made for this model, shown in results.
        model: the name that results show.
        weights_bytes: memory of the weights; ``None`` if that cannot be told.
    """

    backend: str
    device: str
    dtype: str
    context_length: int | None
    memory_budget: int
    vocabulary: int | None = None
    notes: tuple[str, ...] = field(default=())
    model: str = ""
    weights_bytes: int | None = None


@runtime_checkable
class Session(Protocol):
    """A model, loaded and ready to score. ``close`` may be called twice.

    Sessions that have ``LOGITS`` are a ``LogitsSession`` too, those that have ``GENERATE`` a ``GenerateSession``, those
    that have ``GRADIENTS``, ``HIDDEN_STATES`` or ``ATTENTIONS`` an ``InsideSession``.
    """

    @property
    def info(self) -> SessionInfo:
        """Device, dtype and limits."""
        ...

    @property
    def layout(self) -> Layout:
        """The way rows are to be laid out."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this session can do with this model."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        ...

    @property
    def kept(self) -> ModelInput | None:
        """What was read and is kept from one batch to the next: the planner lets the next batch go on from there.

        The tokens of the last packed row, or the encoded prefix; ``None`` for sessions that keep nothing.
        """
        ...

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """An upper estimate of the memory that one row takes while it is scored."""
        ...

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probability of every target token in every row, fp32 or better, on the CPU.

        Values beyond the length of a row's target are not read.

        Raises:
            BatchTooLargeError: memory ran out; the caller halves the batch.
        """
        ...

    def fingerprint(self) -> str:
        """A short name of the model as it is now, for results; cheap, so a small change may go unseen."""
        ...

    def checksum(self) -> str:
        """A text that differs whenever other scores have to be expected; caches file scores under it.

        Raises:
            CapabilityError: nobody can tell; the message says why, as in "the model has a forward hook".
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
        self, prompt: ModelInput, options: Mapping[str, object], seed: int, room: int | None = None
    ) -> tuple[int, ...]:
        """The model's continuation of a prompt, greedy unless ``options`` say otherwise.

        Args:
            prompt: what is continued.
            options: of the generation.
            seed: for options that sample.
            room: the most tokens that fit into the context.

        Raises:
            InputError: an option that the model's generation does not know.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """Opens models in sessions."""

    @property
    def info(self) -> BackendInfo:
        """Name, devices, capabilities, priority."""
        ...

    def availability(self) -> Available | Unavailable:
        """Whether it can be used here; cheap, and never raises."""
        ...

    def claims(self, spec: ModelSpec) -> bool:
        """Whether ``backend="auto"`` may try it for this model; cheap, and opens nothing."""
        ...

    def load(self, spec: ModelSpec, *, device: str | None, dtype: str | None, memory_budget: int | None) -> Session:
        """Open the model; ``None`` leaves the choice to the backend.

        Raises:
            BackendError: the device or dtype does not exist here.
            ModelError: the model does not exist, cannot be read, or cannot be scored.
        """
        ...

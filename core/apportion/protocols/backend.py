"""Backends, sessions, and their descriptions.

A backend opens a model in a session, and the session scores batches. All sessions follow one contract: they return
the numbers of one-row-at-a-time scoring in fp32 or better.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.batch import ScoringBatch
from apportion.protocols.model import ModelSpec
from apportion.protocols.row import ModelInput, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "WHITE_BOX",
    "Available",
    "Backend",
    "BackendInfo",
    "Capability",
    "GenerateSession",
    "Layout",
    "LogitsSession",
    "Session",
    "SessionInfo",
    "TextSession",
    "Unavailable",
    "encoded_media",
    "media_kinds",
]


class Capability(enum.Enum):
    """Something that a session can do; used in ``requires`` of a method and ``capabilities`` of a session."""

    LOG_PROBS = "log_probs"
    LOGITS = "logits"
    GENERATE = "generate"
    TEXT = "text"
    GRADIENTS = "gradients"
    HIDDEN_STATES = "hidden_states"
    ATTENTIONS = "attentions"
    PREFIX_CACHE = "prefix_cache"
    IMAGES = "images"


WHITE_BOX = frozenset({Capability.GRADIENTS, Capability.HIDDEN_STATES, Capability.ATTENTIONS})
"""Capabilities of sessions that give access to the model's internals."""


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """Description of a backend, known without loading anything.

    Attributes:
        name: the name that users type.
        devices: types of device that it runs on (``"cpu"``, ``"cuda"``).
        capabilities: everything that its sessions may be able to do; each session states what it can do with its model.
        priority: ``backend="auto"`` takes the available backend with the highest priority.
        summary: one line for listings.
    """

    name: str
    devices: tuple[str, ...]
    capabilities: frozenset[Capability]
    priority: int = 0
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Available:
    """The backend can be used on this machine."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The backend cannot be used on this machine: the reason, and a hint on what to install or do."""

    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of rows that a session accepts, determined by checking its model.

    Attributes:
        padding: rows of different lengths may share a batch, padded on the right; otherwise all prompts of a batch must
            have the same length, and so must all targets.
        prefix_sharing: a prefix may be encoded once for all rows.
        prefix_rows: number of rows that a batch with a prefix should have at most; ``None`` for any number.
        batch_tokens: number of tokens in a batch that keeps the device busy; a larger batch costs memory and is no
            faster.
        batch_overhead: cost of one more forward pass, in tokens; a prefix is shared if that saves more.
        packing: batches may be ``packed``: the session reads each distinct prefix of the rows once, and keeps the keys
            and values of the last row's tokens, from which the next packed batch continues.
        packing_limit: length of the longest row that may be packed; ``None`` for no limit.
        packing_overhead: extra time per token in a packed batch, as a fraction.
        joint: prompt and target are read as one sequence. ``False`` for encoder–decoder models, which read the prompt
            in the encoder and the target in the decoder: these share no prefixes, and each part has its own length
            limit.
        source_sharing: a prompt is encoded once for all rows of a batch that have it, and not again in the next batch;
            only if that batch has no other prompt, it is encoded alone. For layouts that are not ``joint``.
        lanes: number of batches that may be in progress at once. Above 1, ``log_probs`` and ``logits`` are called from
            that many threads, for batches that do not continue from one another; so are ``generate`` and
            ``write_text``.
        directed: the tokens of a prompt see later ones of the prompt, and those of a target do not. What the model
            reads of a target then never counts as the end of a prompt.
        media: the layout of batches in which a row has media, if it is another one.
        ragged: rows of different lengths share a batch without padding. Batches take rows in the order of their prefix
            tree, so that an engine that keeps prefixes finds them, and each row costs its own tokens.
        batch_rows: maximum number of rows in a batch; ``None`` for any number.
        metered: each batch is paid for, such as a request to a server. ``estimate`` then makes no trials.
        kept_media: number of distinct media whose encodings are kept from batch to batch, so that the rows of a batch
            and of the next ones need not encode them again; ``None`` for any number.
    """

    padding: bool
    prefix_sharing: bool
    batch_tokens: int
    batch_overhead: int = 0
    packing: bool = False
    packing_limit: int | None = None
    packing_overhead: float = 0.0
    joint: bool = True
    source_sharing: bool = False
    lanes: int = 1
    prefix_rows: int | None = None
    directed: bool = False
    media: Layout | None = None
    kept_media: int | None = None
    ragged: bool = False
    batch_rows: int | None = None
    metered: bool = False

    def without_sharing(self) -> Layout:
        """The layout without shared prefixes."""
        media = None if self.media is None else self.media.without_sharing()
        return replace(self, prefix_sharing=False, packing=False, media=media)

    def of(self, rows: Iterable[Row]) -> Layout:
        """The layout of batches of these rows."""
        return self.media if self.media is not None and any(row.media for row in rows) else self


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Description of a session: its device, dtype and limits, for results and error messages.

    Attributes:
        backend: the backend's name.
        device: device, such as ``"cpu"`` or ``"cuda:0"``.
        dtype: dtype of the model's weights, such as ``"float32"``.
        context_length: maximum number of tokens of prompt and target together, or of each of them if the layout is not
            ``joint``; ``None`` if the model has no limit.
        memory_budget: bytes that a batch may use, in addition to the model.
        vocabulary: number of token ids that the model knows; ``None`` if unknown.
        notes: sentences about choices made for this model, shown in results.
        model: the model's name, shown in results.
        weights_bytes: memory of the weights in bytes; ``None`` if unknown.
        target_length: maximum number of target tokens, if the layout is not ``joint`` and the limit is another one than
            ``context_length``; ``None`` if it is that.
        target_vocabulary: number of token ids that the model can write, if that is not ``vocabulary``; ``None`` if it
            is.
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
    target_length: int | None = None
    target_vocabulary: int | None = None

    @property
    def longest_target(self) -> int | None:
        """Maximum number of target tokens; ``None`` if the model has no limit."""
        return self.context_length if self.target_length is None else self.target_length

    @property
    def written_vocabulary(self) -> int | None:
        """Number of token ids that the model can write; ``None`` if unknown."""
        return self.vocabulary if self.target_vocabulary is None else self.target_vocabulary


@runtime_checkable
class Session(Protocol):
    """A model, loaded and ready to score. ``close`` may be called twice.

    A session with the capability ``LOGITS`` is also a ``LogitsSession``. One with ``GENERATE`` is also a
    ``GenerateSession``, and one with ``TEXT`` a ``TextSession``. One with ``GRADIENTS``, ``HIDDEN_STATES`` or
    ``ATTENTIONS`` is also an ``InsideSession``.

    Optional attributes, read if they exist:

    - ``target_tokenizer``: the tokenizer of targets, if the layout is not ``joint``. A text is encoded as its
      ``text_target``. Without this attribute, ``tokenizer`` encodes targets too.
    - ``processor``: the model's processor, which input adapters of media need.
    - ``media_kinds``: ``frozenset[str]``, the kinds of media that it reads. Without this attribute, ``"image"`` if it
      has the capability ``IMAGES``, and else none.
    - ``media_refusal``: ``str``, the reason why it does not read pictures though the model has a processor; else empty.
    - ``likeness``: a ``Likeness``, for a model that nobody can hash, such as one behind a server.
    - ``pace``: ``float``, seconds for each token read so far, and ``price``: ``float | None``, what a million tokens
      cost; for estimates of batches that are ``metered``.
    - ``interrupt()``: called after Ctrl-C, from the thread that waits for the lanes; ``log_probs`` then ends soon.
    - ``tokens_read``: ``int``, number of tokens that the model has read and written since it was opened, where a server
      counts them; for texts.
    - ``bytes_per_token``: ``float``, if the token ids of the tokenizer are bytes and not the model's; for estimates.
    - ``check_prompt(prompt)``: raises ``InputError`` for a prompt that it cannot send, before any text is written.
    - ``writing_state``: ``str``, the model's own settings for writing, such as its generation configuration.
    - ``steady_texts``: ``bool``, ``False`` if even greedy texts differ from time to time.
    - ``log_probs_refusal``: ``str``, the reason why a session without the capability ``LOG_PROBS`` scores no tokens.
    - ``encoded_media``: ``int``, number of media that it has encoded since it was opened, each time anew.
    """

    @property
    def info(self) -> SessionInfo:
        """Device, dtype and limits."""
        ...

    @property
    def layout(self) -> Layout:
        """Layout of rows that the session accepts."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Everything that this session can do with this model."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        ...

    @property
    def kept(self) -> ModelInput | None:
        """The tokens whose state is kept from one batch to the next, so that the next batch can continue from there.

        These are the tokens of the last packed row, or the encoded prefix; ``None`` for sessions that keep nothing.
        """
        ...

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """Upper estimate of the memory, in bytes, that one row takes while it is scored."""
        ...

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probability of every target token in every row, fp32 or better, on the CPU.

        Values past the end of a row's target are ignored.

        Raises:
            BatchTooLargeError: memory ran out; the caller halves the batch.
        """
        ...

    def fingerprint(self) -> str:
        """A short hash of the model in its current state, for results; cheap, so it may miss a small change."""
        ...

    def checksum(self) -> str:
        """A string that differs whenever scores may differ; caches store scores under it.

        Raises:
            CapabilityError: no checksum can cover the model; the message says why, as in "the model has a forward
                hook".
        """
        ...

    def release(self) -> None:
        """Discard what is kept between batches, such as prefixes; called at the beginning and the end of each run."""
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
            batch: rows to score.
            rows: number of rows to yield at once (fewer at the end), in order.

        Raises:
            BatchTooLargeError: memory ran out; the caller halves the batch.
        """
        ...


@runtime_checkable
class GenerateSession(Session, Protocol):
    """A session with the capability ``GENERATE``.

    Optional attribute: ``end_ids``, the tokens with which the model ends a generation; without it, the end-of-text
    token of the tokenizer.
    """

    def generate(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> tuple[int, ...]:
        """Generate the model's continuation of a prompt, greedily unless ``options`` say otherwise.

        A session may lack the parameter ``stop``. Then it writes more than is needed, and the text is cut afterwards.

        Args:
            prompt: prompt to continue.
            options: options of the generation.
            seed: seed for options that sample.
            room: maximum number of tokens that fit into the context.
            stop: texts after which no more tokens are needed. What is returned contains the first of them.

        Raises:
            InputError: an option is unknown to the model's generation.
        """
        ...


@runtime_checkable
class TextSession(Session, Protocol):
    """A session with the capability ``TEXT``: it writes texts, whose tokens it may not know.

    Without this capability, a session with ``GENERATE`` writes texts, too, and the core decodes them. A session that
    has neither ``LOG_PROBS`` nor ``GENERATE`` is a black box, for target functions that need ``TEXT``.
    """

    def write_text(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> str:
        """Write the model's continuation of a prompt, greedily unless ``options`` say otherwise.

        Args:
            prompt: prompt to continue.
            options: options of the generation.
            seed: seed for options that sample.
            room: maximum number of tokens that fit into the context.
            stop: texts after which no more is needed.

        Returns:
            The text without control tokens; it may be empty.

        Raises:
            InputError: an option is unknown, or the prompt is refused.
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
        """Check whether the backend can be used on this machine; cheap, and never raises."""
        ...

    def claims(self, spec: ModelSpec) -> bool:
        """True if ``backend="auto"`` may try this backend for the model; cheap, and opens nothing."""
        ...

    def load(self, spec: ModelSpec, *, device: str | None, dtype: str | None, memory_budget: int | None) -> Session:
        """Open the model; ``None`` leaves the choice to the backend.

        Raises:
            BackendError: the device or dtype is not available on this machine.
            ModelError: the model does not exist, cannot be read, or cannot be scored.
        """
        ...


def media_kinds(session: Session) -> frozenset[str]:
    """The kinds of media that a session reads."""
    images = frozenset({"image"} if Capability.IMAGES in session.capabilities else ())
    found: frozenset[str] = getattr(session, "media_kinds", images)
    return found


def encoded_media(session: Session) -> int:
    """Number of media that a session has encoded so far; 0 if it does not count them."""
    return int(getattr(session, "encoded_media", 0))

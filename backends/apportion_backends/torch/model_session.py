"""A session of an open model: what does not depend on how the model reads its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from apportion.errors import BackendError
from apportion.protocols.backend import Capability, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.inside import EmbeddedBatch
from apportion_backends.torch.checksum import model_checksum
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.edits import named_modules
from apportion_backends.torch.fingerprint import fingerprint, weights_bytes
from apportion_backends.torch.generating import end_ids
from apportion_backends.torch.guard import Guard
from apportion_backends.torch.head import Head, all_logits, at_targets, log_probs_of_logits, target_log_probs, upcast
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.loading import OpenModel
from apportion_backends.torch.memory import RowBytes, translate_out_of_memory
from apportion_backends.torch.model_inside import ModelInside
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.structure import StructureLog

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ModelSession", "batch_size"]

CPU_BATCH_TOKENS = 1024
GPU_BATCH_TOKENS = 65536
CPU_BATCH_OVERHEAD = 40
"""Tokens' worth of time that one more forward costs: it reads all weights. Measured on 2 cores with SmolLM2."""
GPU_BATCH_OVERHEAD = 4096
"""Not measured: a GPU wants few, large batches, and attention with a mask leaves its fastest path there."""


class ModelSession(ABC):
    """A ``transformers`` model on one device: what does not depend on how it reads its rows.

    A subclass reads batches (``_read``), and says which ones the model allows (``layout``).

    Args:
        model: the open model and its tokenizer.
        traits: shortcuts that the model allows; see ``probe``.
        memory_budget: bytes a batch may take.
        joint: prompt and target are read as one sequence.
        structure: findings on the model by its structure; ``None`` for those of the usual probe.

    Attributes:
        capabilities: everything that the session can do with the model.
        tokenizer: the model's tokenizer.
    """

    capabilities: frozenset[Capability]
    _limit: int | None
    _activations: RowBytes

    def __init__(
        self,
        model: OpenModel,
        traits: Traits,
        memory_budget: int,
        *,
        joint: bool,
        structure: StructureLog | None = None,
    ) -> None:
        self._model: PreTrainedModel | None = model.model
        self.tokenizer = model.tokenizer
        self._name, self._notes_on_opening = model.name, model.notes
        self._memory_budget = memory_budget
        self._joint = joint
        self._inside: ModelInside | None = None
        self._structure = structure or StructureLog(model.model, traits)
        self._look()

    @abstractmethod
    def _read(self, batch: ScoringBatch) -> Float[Tensor, "B T D"]:
        """States at the positions that predict the target: last hidden ones if the head is linear, else logits."""

    @abstractmethod
    def _adapt(self, model: PreTrainedModel) -> None:
        """Set capabilities, the limit and the memory of rows, because the model is new or its structure has changed."""

    @abstractmethod
    def _new_inside(self, model: PreTrainedModel) -> ModelInside:
        """The inside of the model as it is now."""

    @abstractmethod
    def _forget(self) -> None:
        """Discard what was encoded."""

    @property
    def info(self) -> SessionInfo:
        """Device, dtype and limits of the model as it is; of a closed session, as it was."""
        model = self._model
        if model is not None:
            self._look_again()
            self._info = self._describe(model)
        return self._info

    @property
    def model(self) -> PreTrainedModel:
        """The model.

        Raises:
            BackendError: the session was closed.
        """
        if self._model is None:
            raise BackendError("This session is closed; make a new Explainer.")
        return self._model

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens with which the model ends a generation; empty if its configuration names none."""
        return end_ids(self.model)

    @property
    def writing_state(self) -> str:
        """The model's generation configuration, parts of which decide what it writes."""
        config = self.model.generation_config
        return "" if config is None else str(config.to_json_string(use_diff=True, ignore_metadata=True))

    def modules(self) -> Mapping[str, nn.Module]:
        """All modules of the model, by name."""
        return named_modules(self.model)

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the target in every row, fp32 or better.

        Raises:
            BatchTooLargeError: memory ran out.
            ScoreError: the model fails on a row.
        """
        with scoring_mode(self.model), translate_out_of_memory():
            states = self.hidden(batch)
            if self._traits.linear_head:
                head = Head.of(self.model)
                found = at_targets(lambda part, ids: target_log_probs(part, head, ids), states, batch)
            else:
                found = log_probs_of_logits(states, batch.targets()[0].to(states.device))
        # A copy made outside inference mode is an ordinary tensor, which its receiver may change.
        return found.cpu().clone()

    def logits(self, batch: ScoringBatch, rows: int) -> Iterator[Float[Tensor, "b T V"]]:
        """Logits at the positions that predict the target, fp32 or better, a few rows at a time.

        One forward for the whole batch; of its last hidden states the head reads ``rows`` at a time.

        Raises:
            BatchTooLargeError: memory ran out.
            ScoreError: the model fails on a row.
        """
        with scoring_mode(self.model), translate_out_of_memory():
            states = self.hidden(batch)
            linear = self._traits.linear_head
        for part in states.split(rows):
            with scoring_mode(self.model), translate_out_of_memory():
                found = all_logits(part, Head.of(self.model)) if linear else upcast(part)
            yield found.clone()

    def hidden(self, batch: ScoringBatch) -> Float[Tensor, "B T D"]:
        """States at the positions that predict the target, called in ``scoring_mode``.

        They are the last hidden states where the model has a linear head, else the model's logits.

        Raises:
            ScoreError: the model fails on a row.
        """
        self._look_again()
        return self._guard(batch)

    def embeddings(self, ids: tuple[int, ...], *, target: bool = False) -> Float[Tensor, "L D"]:
        """Input embeddings of tokens, as the model reads them in a prompt or a target; detached."""
        return self._opened().embeddings(ids, target=target)

    def forward(
        self, batch: EmbeddedBatch, *, recompute: bool = False
    ) -> AbstractContextManager[Float[Tensor, "B T V"]]:
        """Context of a forward pass over embeddings and its backward passes.

        Raises:
            BatchTooLargeError: memory ran out.
        """
        return self._opened().forward(batch, recompute=recompute)

    def graph_bytes(self, prompt: int, target: int) -> int:
        """Upper estimate of the memory of one row's forward pass with what its backward pass needs, in bytes."""
        return self._opened().graph_bytes(prompt, target)

    def fingerprint(self) -> str:
        """A hash of the configuration, of classes and settings, and of a sample of every weight, as they are now."""
        self._look_again()
        return fingerprint(self.model, self._structure.settings)

    def checksum(self) -> str:
        """A hash of everything that decides the model's scores.

        Raises:
            CapabilityError: hooks, replaced functions, or weights that are not in memory.
        """
        return model_checksum(self.model)

    def release(self) -> None:
        """Discard what was encoded, because the model may change before the next run."""
        self._forget()
        if self._inside is not None:
            self._inside.release()
        self._looked = False

    def close(self) -> None:
        """Release the model; idempotent."""
        self._info = self.info
        self.release()
        self._model = self._inside = None

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """Upper estimate of the memory that a row takes, in bytes."""
        return self._activations(prefix, suffix, targets)

    def _opened(self) -> ModelInside:
        model = self.model
        self._look_again()
        inside = self._inside
        if inside is None:
            inside = self._inside = self._new_inside(model)
        return inside

    def _look_again(self) -> None:
        """Look at the model's structure if it may have changed since; not while something is kept of it."""
        if not self._looked and self._model is not None:
            self._look()

    def _look(self) -> None:
        """Set everything that follows from the model's structure."""
        model = self.model
        findings, changed = self._structure.look(model)
        self._traits, self._notes = findings.traits, findings.notes
        self._guard = Guard(self._read, findings.doubt, self._traits.probed_length, joint=self._joint)
        if changed:
            self._weights_bytes = weights_bytes(model)
            self._inside = None
            self._adapt(model)
        self._looked = True

    def _describe(self, model: PreTrainedModel) -> SessionInfo:
        return SessionInfo(
            backend="torch",
            device=str(input_device(model)),
            dtype=str(model.dtype).removeprefix("torch."),
            context_length=self._limit,
            memory_budget=self._memory_budget,
            vocabulary=_vocabulary(model),
            notes=(*self._notes_on_opening, *self._notes, *self._guard.notes),
            model=self._name,
            weights_bytes=self._weights_bytes,
        )


def batch_size(model: nn.Module, *, batching: bool) -> tuple[int, int]:
    """Tokens in a batch that keep the model's device busy, and the cost of one more batch in tokens.

    Args:
        model: the model.
        batching: rows may share a batch.
    """
    if input_device(model).type == "cpu":
        tokens, overhead = CPU_BATCH_TOKENS, CPU_BATCH_OVERHEAD
    else:
        tokens, overhead = GPU_BATCH_TOKENS, GPU_BATCH_OVERHEAD
    return (tokens if batching else 1), overhead


def _vocabulary(model: PreTrainedModel) -> int | None:
    """Token ids that can both be read and be predicted."""
    sizes = (
        _rows(model.get_input_embeddings(), "num_embeddings"),
        _rows(model.get_output_embeddings(), "out_features"),
    )
    return min((size for size in sizes if size is not None), default=None)


def _rows(layer: nn.Module | None, attribute: str) -> int | None:
    """Tokens that an embedding or output layer knows; the weight of a plain one, which may have been exchanged."""
    weight: Any = getattr(layer, "weight", None)
    if type(weight) in (Tensor, nn.Parameter) and weight.is_floating_point() and weight.ndim == 2:
        return len(weight)
    size = getattr(layer, attribute, None)
    return size if isinstance(size, int) else None

"""The session: a model that scores batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from apportion.errors import BackendError, InputError, shown
from apportion.protocols.backend import Capability, Layout, SessionInfo
from apportion.protocols.batch import PaddedBatch, ScoringBatch
from apportion.protocols.inside import NO_EDITS, Edits, EmbeddedBatch, Trace
from apportion.protocols.row import ModelInput
from apportion_backends.torch.checksum import model_checksum
from apportion_backends.torch.edits import named_modules
from apportion_backends.torch.fingerprint import fingerprint, weights_bytes
from apportion_backends.torch.generate_options import check_generate_options, unknown_options
from apportion_backends.torch.guard import Guard
from apportion_backends.torch.head import Head, all_logits, at_targets, log_probs_of_logits, target_log_probs, upcast
from apportion_backends.torch.inputs import cache_argument, input_device
from apportion_backends.torch.inside import DecoderInside, embeddings
from apportion_backends.torch.limits import context_length
from apportion_backends.torch.loading import OpenModel
from apportion_backends.torch.memory import ActivationSize, translate_out_of_memory
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.packed import PackedModel
from apportion_backends.torch.packed_attention import TrunkAttention
from apportion_backends.torch.prefix import PrefixStore
from apportion_backends.torch.probe import Traits
from apportion_backends.torch.stopping import StopAtText
from apportion_backends.torch.structure import StructureLog
from apportion_backends.torch.tracing import gives_attention, trace

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

__all__ = ["GREEDY", "TorchSession"]

GREEDY: Mapping[str, object] = {
    "max_new_tokens": 25,
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "temperature": None,
    "top_p": None,
    "top_k": None,
}
"""Options of generation if the user gives no target: greedy, whatever the model's own settings are."""

CPU_BATCH_TOKENS = 1024
GPU_BATCH_TOKENS = 65536
CPU_BATCH_OVERHEAD = 40
"""Tokens' worth of time that one more forward costs: it reads all weights. Measured on 2 cores with SmolLM2."""
GPU_BATCH_OVERHEAD = 4096
"""Not measured: a GPU wants few, large batches, and attention with a mask leaves its fastest path there."""

PACKING_OVERHEAD = 0.03
"""Attention gathers the tokens of each row's path. On 2 cores with SmolLM2, packed batches of rows that share nothing
took 0.94 to 1.04 of the time of plain ones."""


class TorchSession:
    """A ``transformers`` model on one device.

    Args:
        model: the open model and its tokenizer.
        traits: shortcuts that the model allows; see ``probe``.
        memory_budget: bytes a batch may take.
        compiled: fuse what is between matrix products.
    """

    def __init__(self, model: OpenModel, traits: Traits, memory_budget: int, *, compiled: bool = False) -> None:
        self._model: PreTrainedModel | None = model.model
        self.tokenizer = model.tokenizer
        self._name, self._notes_on_opening = model.name, model.notes
        self._memory_budget = memory_budget
        self._compiled = compiled
        self._prefixes: PrefixStore | None = None
        self._packed: PackedModel | None = None
        self._inside: DecoderInside | None = None
        self._trunk_attention: TrunkAttention | None = None
        self._structure = StructureLog(model.model, traits)
        self._look()

    @property
    def info(self) -> SessionInfo:
        """Device, dtype and limits of the model as it is; of a closed session, as it was."""
        model = self._model
        if model is not None:
            self._look_again()
            self._info = SessionInfo(
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
        return self._info

    @property
    def layout(self) -> Layout:
        """The layout that this model allows; the model is probed again if its structure has changed."""
        self._look_again()
        traits, refused = self._traits, self._guard.refused
        on_gpu = input_device(self.model).type != "cpu"
        tokens = GPU_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS
        return Layout(
            padding=traits.padding and "padding" not in refused,
            prefix_sharing=traits.prefix_sharing and "prefix" not in refused,
            batch_tokens=tokens if traits.batching and "batching" not in refused else 1,
            batch_overhead=GPU_BATCH_OVERHEAD if on_gpu else CPU_BATCH_OVERHEAD,
            packing=traits.packing and "packing" not in refused,
            packing_limit=traits.packing_limit,
            packing_overhead=PACKING_OVERHEAD,
        )

    @property
    def linear_head(self) -> bool:
        """True if ``Head`` computes the logits from ``hidden``."""
        return self._traits.linear_head

    @property
    def kept(self) -> ModelInput | None:
        """The last packed row or the encoded prefix, from which the next batch continues."""
        packed = None if "packing" in self._guard.refused else self._packed
        holder = packed or self._prefixes
        return ModelInput(holder.kept) if holder is not None and holder.kept else None

    @property
    def model(self) -> PreTrainedModel:
        """The model.

        Raises:
            BackendError: the session was closed.
        """
        if self._model is None:
            raise BackendError("This session is closed; make a new Explainer.")
        return self._model

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

    def _read(self, batch: ScoringBatch) -> Float[Tensor, "B T D"]:
        if not self._traits.linear_head:
            return self._own_logits(batch)
        if batch.packed:
            packed = self._packed  # another thread may look at the model meanwhile
            if packed is None:
                packed = PackedModel(self.model, compiled=self._compiled, fused=self._trunk_attention)
                self._packed = packed
            return packed.hidden(batch.rows)
        ids, keep = self._laid_out(batch.padded())
        return self._read_by_head(self.model.base_model(ids, **self._cache(batch))[0], keep)

    def attend_by(self, attention: TrunkAttention | None) -> None:
        """Use this for the attention of packed rows to shared tokens; ``None`` for PyTorch's operations."""
        self._trunk_attention, self._packed = attention, None

    def _read_by_head(self, states: Float[Tensor, "B L D"], keep: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The states at these positions, as the model's head reads them."""
        # Some models add layers up in fp32 whatever their weights are.
        states = states.to(self.model.get_output_embeddings().weight.dtype)
        return states.gather(1, keep[:, :, None].expand(-1, -1, states.shape[-1]))

    def _laid_out(self, batch: PaddedBatch) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B T"]]:
        """Suffix and target of every row, right-padded, and the positions before each target token.

        The last target token is predicted and not read.
        """
        steps = torch.arange(batch.target_ids.shape[1])
        # The columns of what is beyond a row's target are those of its last token.
        steps = torch.minimum(steps, batch.target_lengths[:, None] - 1)
        where = batch.suffix_lengths[:, None] + steps
        width = int((batch.suffix_lengths + batch.target_lengths).max())
        ids = torch.zeros(len(batch.suffix_ids), width, dtype=torch.long)
        ids[:, : batch.suffix_ids.shape[1]] = batch.suffix_ids
        ids.scatter_(1, where, batch.target_ids.gather(1, steps))
        device = input_device(self.model)
        return ids[:, : width - 1].to(device), (where - 1).to(device)

    def _prefix(self, batch: ScoringBatch) -> Cache:
        """The encoded prefix of every row.

        Raises:
            BackendError: the model keeps a state that cannot be shared.
        """
        prefixes = self._prefixes
        if prefixes is None:
            prefixes = self._prefixes = PrefixStore(self.model)
        cache = prefixes.get(batch.prefix)
        if cache is None:
            raise BackendError("This model cannot share a prefix; its layout says so.")
        return cache

    def generate(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> tuple[int, ...]:
        """The model's continuation; greedy with 25 new tokens unless ``options`` say otherwise.

        Args:
            prompt: prompt to continue.
            options: options of generation in ``transformers``.
            seed: seed for options that sample; the caller's random state is untouched.
            room: maximum number of tokens that fit into the context; fewer are generated by default then.
            stop: texts that end the generation, and are its end.

        Raises:
            InputError: the model's ``generate`` does not take an option, or refuses its value, or it has no effect.
        """
        check_generate_options(options)
        device = input_device(self.model)
        ids = torch.tensor([prompt.ids], device=device)
        config = self.model.generation_config
        pad = config.pad_token_id if config is not None and config.pad_token_id is not None else 0
        settings: dict[str, Any] = {"pad_token_id": pad, **GREEDY, **options}
        if room is not None and isinstance(settings["max_new_tokens"], int):
            settings["max_new_tokens"] = min(settings["max_new_tokens"], room)
        if stop:
            given = settings.get("stopping_criteria") or ()
            settings["stopping_criteria"] = [*given, StopAtText(self.tokenizer, len(prompt.ids), stop)]
        devices = [device] if device.type == "cuda" else []
        with scoring_mode(self.model), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            try:
                out = self.model.generate(ids, attention_mask=torch.ones_like(ids), **settings)  # type: ignore[operator]
                if not isinstance(out, Tensor) or len(out) != 1:
                    raise ValueError("one sequence of token ids is needed, and these options give something else")
                return tuple(out[0, len(prompt.ids) :].tolist())
            except (TypeError, ValueError, IndexError, AttributeError) as error:
                unknown = unknown_options(options, self.model.generate)
                raise InputError(
                    unknown or f"The model cannot generate with {shown(dict(options))}: {error}"
                ) from error

    def modules(self) -> Mapping[str, nn.Module]:
        """All modules of the model, by name."""
        return named_modules(self.model)

    def embeddings(self, ids: tuple[int, ...], *, target: bool = False) -> Float[Tensor, "L D"]:
        """Input embeddings of tokens, detached."""
        return embeddings(self.model, ids)

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

    def trace(
        self,
        prompt: tuple[int, ...],
        target: tuple[int, ...],
        *,
        hidden: bool = False,
        attentions: bool = False,
        modules: Sequence[str] = (),
        edits: Edits = NO_EDITS,
    ) -> Trace:
        """Internals of one forward pass.

        Raises:
            InputError: the model has no module with this name, or the module returns no tensor.
            CapabilityError: attention weights were requested, which this model does not give.
        """
        ids = (*prompt, *target[:-1])
        with translate_out_of_memory():
            return trace(self.model, ids, hidden=hidden, attentions=attentions, modules=modules, edits=edits)

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
        self._prefixes = None
        packed = self._packed
        if packed is not None:
            packed.forget()
        if self._inside is not None:
            self._inside.release()
        self._looked = False

    def close(self) -> None:
        """Release the model; idempotent."""
        self._info = self.info
        self.release()
        self._model = self._packed = self._inside = None

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """Upper estimate of the memory that a row takes, in bytes."""
        return self._activations(prefix, suffix, targets)

    def _look_again(self) -> None:
        """Look at the model's structure if it may have changed since; not while something is kept of it."""
        if not self._looked and self._model is not None:
            self._look()

    def _look(self) -> None:
        """Set everything that follows from the model's structure."""
        model = self.model
        findings, changed = self._structure.look(model)
        self._traits, self._notes = findings.traits, findings.notes
        self._guard = Guard(self._read, findings.doubt, self._traits.probed_length)
        if changed:
            if self._compiled and self._packed is not None:
                torch.compiler.reset()  # what was compiled does not look at all that may have changed
            self.capabilities = frozenset(
                {Capability.LOG_PROBS, Capability.LOGITS, Capability.GRADIENTS, Capability.HIDDEN_STATES}
                | ({Capability.GENERATE} if model.can_generate() else set())
                | ({Capability.PREFIX_CACHE} if self._traits.prefix_sharing else set())
                | ({Capability.ATTENTIONS} if gives_attention(model) else set())
            )
            self._limit = context_length(model)
            self._weights_bytes = weights_bytes(model)
            self._packed = None
            self._inside = None
            self._activations = ActivationSize(
                model,
                linear_head=self._traits.linear_head,
                supports_logits_to_keep=self._traits.supports_logits_to_keep,
            )
        self._looked = True

    def _opened(self) -> DecoderInside:
        """The inside of the model as it is now."""
        model = self.model
        self._look_again()
        inside = self._inside
        if inside is None:
            inside = self._inside = DecoderInside(model, self._traits)
        return inside

    def _own_logits(self, batch: ScoringBatch) -> Float[Tensor, "B T V"]:
        """The model's own logits at those positions, where they are more than its head."""
        ids, keep = self._laid_out(batch.padded())
        extra = {"logits_to_keep": keep} if self._traits.supports_logits_to_keep else {}
        logits: Tensor = self.model(ids, **extra, **self._cache(batch)).logits
        if self._traits.supports_logits_to_keep:
            return logits
        return logits.gather(1, keep.to(logits.device)[:, :, None].expand(-1, -1, logits.shape[-1]))

    def _cache(self, batch: ScoringBatch) -> dict[str, Any]:
        """Arguments by which a forward gets the prefix."""
        if not batch.prefix_length:
            return {"use_cache": False, "return_dict": True}
        return {cache_argument(self.model.base_model): self._prefix(batch), "use_cache": True, "return_dict": True}


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

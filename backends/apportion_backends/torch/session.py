"""The session of a causal model: prompt and target are one sequence, and rows share what they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.errors import BackendError
from apportion.protocols.backend import Capability, Layout
from apportion.protocols.batch import PaddedBatch, ScoringBatch
from apportion.protocols.inside import NO_EDITS, Edits, Trace
from apportion.protocols.row import ModelInput
from apportion_backends.torch.attention_weights import gives_attention
from apportion_backends.torch.comparing import Traits
from apportion_backends.torch.generating import generated
from apportion_backends.torch.inputs import cache_argument, input_device
from apportion_backends.torch.inside import DecoderInside
from apportion_backends.torch.limits import context_length
from apportion_backends.torch.loading import OpenModel
from apportion_backends.torch.memory import ActivationSize, translate_out_of_memory
from apportion_backends.torch.model_session import ModelSession, batch_size
from apportion_backends.torch.packed import PackedModel
from apportion_backends.torch.packed_attention import TrunkAttention
from apportion_backends.torch.prefix import PrefixStore
from apportion_backends.torch.structure import StructureLog
from apportion_backends.torch.tracing import trace

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

__all__ = ["TorchSession"]

PACKING_OVERHEAD = 0.03
"""Attention gathers the tokens of each row's path. On 2 cores with SmolLM2, packed batches of rows that share nothing
took 0.94 to 1.04 of the time of plain ones."""


class TorchSession(ModelSession):
    """A causal ``transformers`` model on one device.

    Args:
        model: the open model and its tokenizer.
        traits: shortcuts that the model allows; see ``probe``.
        memory_budget: bytes a batch may take.
        compiled: fuse what is between matrix products.
        structure: findings on the model by its structure; ``None`` for those of the usual probe.
    """

    def __init__(
        self,
        model: OpenModel,
        traits: Traits,
        memory_budget: int,
        *,
        compiled: bool = False,
        structure: StructureLog | None = None,
    ) -> None:
        self._compiled = compiled
        self._prefixes: PrefixStore | None = None
        self._packed: PackedModel | None = None
        self._trunk_attention: TrunkAttention | None = None
        super().__init__(model, traits, memory_budget, joint=True, structure=structure)

    @property
    def layout(self) -> Layout:
        """The layout that this model allows; the model is probed again if its structure has changed."""
        self._look_again()
        traits, refused = self._traits, self._guard.refused
        tokens, overhead = batch_size(self.model, batching=traits.batching and "batching" not in refused)
        return Layout(
            padding=traits.padding and "padding" not in refused,
            prefix_sharing=traits.prefix_sharing and "prefix" not in refused,
            batch_tokens=tokens,
            batch_overhead=overhead,
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
        ids = torch.tensor([prompt.ids], device=input_device(self.model))
        return generated(self.model, self.tokenizer, ids, options, seed, room, stop)

    def trace(
        self,
        prompt: tuple[int, ...],
        target: tuple[int, ...],
        *,
        hidden: bool = False,
        attentions: bool = False,
        modules: Sequence[str] = (),
        edits: Edits = NO_EDITS,
        last: int | None = None,
    ) -> Trace:
        """Internals of one forward pass.

        Raises:
            InputError: the model has no module with this name, or the module returns no tensor.
            CapabilityError: attention weights were requested, which this model does not give.
        """
        ids = (*prompt, *target[:-1])
        with translate_out_of_memory():
            return trace(self.model, ids, hidden=hidden, attentions=attentions, modules=modules, edits=edits, last=last)

    def close(self) -> None:
        """Release the model; idempotent."""
        super().close()
        self._packed = None

    def _forget(self) -> None:
        self._prefixes = None
        packed = self._packed
        if packed is not None:
            packed.forget()

    def _adapt(self, model: PreTrainedModel) -> None:
        if self._compiled and self._packed is not None:
            torch.compiler.reset()  # what was compiled does not look at all that may have changed
        self.capabilities = frozenset(
            {Capability.LOG_PROBS, Capability.LOGITS, Capability.GRADIENTS, Capability.HIDDEN_STATES}
            | ({Capability.GENERATE} if model.can_generate() else set())
            | ({Capability.PREFIX_CACHE} if self._traits.prefix_sharing else set())
            | ({Capability.ATTENTIONS} if gives_attention(model) else set())
        )
        self._limit = context_length(model)
        self._packed = None
        self._activations = ActivationSize(
            model,
            linear_head=self._traits.linear_head,
            supports_logits_to_keep=self._traits.supports_logits_to_keep,
        )

    def _new_inside(self, model: PreTrainedModel) -> DecoderInside:
        return DecoderInside(model, self._traits)

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

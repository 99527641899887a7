"""The session: a model that scores batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.backend import Capability, Layout, ScoringBatch, SessionInfo
from apportion.errors import BackendError, InputError
from apportion.models import LoadedModel
from apportion_backends.torch.head import log_probs_of_logits, target_log_probs
from apportion_backends.torch.memory import ActivationSize, translate_out_of_memory
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.prefix import encode_prefix
from apportion_backends.torch.probe import Traits

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

__all__ = ["GREEDY", "TorchSession"]

GREEDY: Mapping[str, object] = {
    "max_new_tokens": 25,
    "do_sample": False,
    "temperature": None,
    "top_p": None,
    "top_k": None,
}
"""Generation when the user gives no target."""

CPU_BATCH_TOKENS = 1024
GPU_BATCH_TOKENS = 65536
CPU_BATCH_OVERHEAD = 48
"""Tokens' worth of time that one more forward costs; measured on 2 cores with SmolLM2."""
GPU_BATCH_OVERHEAD = 4096
"""Not measured: a GPU wants few, large batches, and attention with a mask leaves its fastest path there."""


class TorchSession:
    """A ``transformers`` model on one device.

    Args:
        model: what was loaded.
        traits: what the model allows, see ``probe``.
        memory_budget: bytes a batch may take.
    """

    def __init__(self, model: LoadedModel, traits: Traits, memory_budget: int) -> None:
        self._model: PreTrainedModel | None = model.model
        self._traits = traits
        # Nested prefixes, each extending the one before.
        self._prefixes: list[tuple[tuple[int, ...], Cache]] = []
        module = model.model
        on_gpu = module.device.type == "cuda"
        tokens = GPU_BATCH_TOKENS if on_gpu else CPU_BATCH_TOKENS
        self.row_bytes = ActivationSize(module, linear_head=traits.linear_head)
        self.layout = Layout(
            padding=traits.padding,
            prefix_sharing=traits.prefix_sharing,
            batch_tokens=tokens if traits.batching else 1,
            batch_overhead=GPU_BATCH_OVERHEAD if on_gpu else CPU_BATCH_OVERHEAD,
        )
        self.capabilities = frozenset(
            {Capability.LOG_PROBS, Capability.LOGITS}
            | ({Capability.GENERATE} if module.can_generate() else set())
            | ({Capability.PREFIX_CACHE} if traits.prefix_sharing else set())
        )
        self.info = SessionInfo(
            backend="torch",
            device=str(module.device),
            dtype=str(module.dtype).removeprefix("torch."),
            context_length=_context_length(module),
            memory_budget=memory_budget,
            notes=traits.notes(),
        )

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
        """
        with scoring_mode(self.model), translate_out_of_memory():
            target = batch.target_ids.to(self.model.device)
            if not self._traits.linear_head:
                return log_probs_of_logits(self._target_logits(batch), target).cpu()
            rows, targets = batch.n_rows, len(target)
            hidden = self._target_hidden(batch).reshape(rows * targets, -1)
            head = self.model.get_output_embeddings()
            bias = getattr(head, "bias", None)
            found = target_log_probs(hidden, head.weight, bias, target.repeat(rows))
            return found.reshape(rows, targets).cpu()

    def logits(self, batch: ScoringBatch) -> Float[Tensor, "B T V"]:
        """Logits at the positions that predict the target, fp32 or better.

        Raises:
            BatchTooLargeError: memory ran out.
        """
        with scoring_mode(self.model), translate_out_of_memory():
            logits = self._target_logits(batch)
            return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def generate(self, ids: tuple[int, ...], options: Mapping[str, object], seed: int) -> tuple[int, ...]:
        """The model's continuation; greedy with 25 new tokens unless ``options`` say otherwise.

        Raises:
            InputError: the model's ``generate`` does not take an option, or refuses its value.
        """
        device = self.model.device
        prompt = torch.tensor([ids], device=device)
        config = self.model.generation_config
        pad = config.pad_token_id if config is not None and config.pad_token_id is not None else 0
        devices = [device] if device.type == "cuda" else []
        with scoring_mode(self.model), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            settings: dict[str, Any] = {"pad_token_id": pad, **GREEDY, **options}
            try:
                out = self.model.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)  # type: ignore[operator]
            except (TypeError, ValueError) as error:
                raise InputError(f"The model cannot generate with {dict(options)!r}: {error}") from error
        return tuple(out[0, len(ids) :].tolist())

    def close(self) -> None:
        """Let go of the model; idempotent."""
        self._model = None
        self._prefixes = []

    def _target_hidden(self, batch: ScoringBatch) -> Float[Tensor, "B T D"]:
        """Last hidden states at the positions that predict the target."""
        ids, keep = self._rows(batch)
        hidden: Tensor = self.model.base_model(ids, **self._cache(batch))[0]
        return hidden.gather(1, keep[:, :, None].expand(-1, -1, hidden.shape[-1]))

    def _target_logits(self, batch: ScoringBatch) -> Float[Tensor, "B T V"]:
        """The model's own logits at those positions."""
        if self._traits.linear_head:
            logits: Tensor = self.model.get_output_embeddings()(self._target_hidden(batch))
            return logits
        ids, keep = self._rows(batch)
        extra = {"logits_to_keep": keep} if self._traits.keeps_rows else {}
        logits = self.model(ids, **extra, **self._cache(batch)).logits
        if self._traits.keeps_rows:
            return logits
        return logits.gather(1, keep[:, :, None].expand(-1, -1, logits.shape[-1]))

    def _rows(self, batch: ScoringBatch) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B T"]]:
        """Suffix and target of every row, right-padded, and the positions before each target token.

        The last target token is predicted and not read.
        """
        read = batch.target_ids[:-1]
        width = batch.suffix_ids.shape[1] + len(read)
        ids = torch.zeros(batch.n_rows, width, dtype=torch.long)
        ids[:, : batch.suffix_ids.shape[1]] = batch.suffix_ids
        where = batch.suffix_lengths[:, None] + torch.arange(len(read))
        ids.scatter_(1, where, read.expand(batch.n_rows, -1))
        keep = batch.suffix_lengths[:, None] - 1 + torch.arange(len(batch.target_ids))
        return ids.to(self.model.device), keep.to(self.model.device)

    def _cache(self, batch: ScoringBatch) -> dict[str, Any]:
        """How the forward gets the prefix; kept for the next batches, and extended where theirs is longer."""
        ids = tuple(batch.prefix_ids.tolist())
        while self._prefixes and self._prefixes[-1][0] != ids[: len(self._prefixes[-1][0])]:
            self._prefixes.pop()
        if not ids:
            return {"use_cache": False}
        if not self._prefixes or self._prefixes[-1][0] != ids:
            known, start = self._prefixes[-1] if self._prefixes else ((), None)
            cache = encode_prefix(self.model, batch.prefix_ids[len(known) :], start)
            if cache is None:
                raise BackendError("This model cannot share a prefix; its layout says so.")
            self._prefixes.append((ids, cache))
        return {"past_key_values": self._prefixes[-1][1], "use_cache": True}


def _context_length(model: PreTrainedModel) -> int | None:
    """The model's limit on positions, where it has one."""
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if isinstance(limit, int) and limit > 0 else None

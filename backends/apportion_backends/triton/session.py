"""The session: that of the torch backend, some of whose parts are fused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from apportion.backend import Capability, Layout, ScoringBatch, SessionInfo
from apportion_backends.torch.head import Head, at_targets
from apportion_backends.torch.memory import translate_out_of_memory
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.session import TorchSession
from apportion_backends.triton.costs import Costs
from apportion_backends.triton.linear_logprob import linear_logprob
from apportion_backends.triton.prefix_model import SharedPrefixModel
from apportion_backends.triton.runtime import interpreting
from apportion_backends.triton.trial import Trial

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["TritonSession"]


class TritonSession:
    """A ``transformers`` model whose head and prefixes are fused where that pays; all else is the torch session's.

    Args:
        inner: the torch session.
        costs: decides for each batch.
        trial: which kernels give the right numbers with this model here.
    """

    def __init__(self, inner: TorchSession, costs: Costs, trial: Trial) -> None:
        self._inner = inner
        self._costs = costs
        self._trial = trial
        self._prefix_model: SharedPrefixModel | None = None
        self._prefix_kernel_ran = False
        self.capabilities: frozenset[Capability] = inner.capabilities

    @property
    def info(self) -> SessionInfo:
        """With a sentence on what is fused."""
        info = self._inner.info
        return replace(info, backend="triton", notes=(*info.notes, *self._notes()))

    @property
    def layout(self) -> Layout:
        """That of the torch session."""
        return self._inner.layout

    @property
    def kept(self) -> tuple[int, ...]:
        """Tokens whose state is kept."""
        return self._inner.kept

    @property
    def model(self) -> PreTrainedModel:
        """The model.

        Raises:
            BackendError: the session was closed.
        """
        return self._inner.model

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """As much as the torch session takes, which is no less."""
        return self._inner.row_bytes(prefix, suffix, targets)

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the target in every row, in fp32.

        Raises:
            BatchTooLargeError: memory ran out.
        """
        if not (self._costs.head and self._inner.linear_head and self._trial.head):
            return self._inner.log_probs(batch)
        with scoring_mode(self.model), translate_out_of_memory():
            head = Head.of(self.model)

            def score(states: Float[Tensor, "R D"], ids: Int[Tensor, " R"]) -> Float[Tensor, " R"]:
                return linear_logprob(states, head.weight, ids, head.bias, soft_cap=head.soft_cap).log_prob

            found = at_targets(score, self._hidden(batch), batch)
        # A copy made outside inference mode is an ordinary tensor, which its receiver may change.
        return found.cpu().clone()

    def logits(self, batch: ScoringBatch, rows: int) -> Iterator[Float[Tensor, "b T V"]]:
        """The torch session's."""
        return self._inner.logits(batch, rows)

    def generate(
        self, ids: tuple[int, ...], options: Mapping[str, object], seed: int, room: int | None = None
    ) -> tuple[int, ...]:
        """The torch session's."""
        return self._inner.generate(ids, options, seed, room)

    def release(self) -> None:
        """Forget what was encoded."""
        self._inner.release()

    def close(self) -> None:
        """Let go of the model; idempotent."""
        self._prefix_model = None
        self._inner.close()

    def _hidden(self, batch: ScoringBatch) -> Float[Tensor, "B T D"]:
        """Last hidden states at the positions that predict the target."""
        prefix = len(batch.prefix_ids)
        if batch.packed or not (self._trial.prefixes and self._costs.prefix(prefix, batch.n_rows)):
            return self._inner.hidden(batch)
        if self._prefix_model is None:
            self._prefix_model = SharedPrefixModel(self.model)
        ids, keep = self._inner.padded(batch)
        if not self._prefix_model.fits(prefix + ids.shape[1]):
            return self._inner.hidden(batch)
        self._prefix_kernel_ran = True
        return self._inner.read_by_head(self._prefix_model.hidden(ids, self._inner.prefix(batch)), keep)

    def _notes(self) -> Iterator[str]:
        if interpreting():
            yield "Triton kernels were interpreted, which is slow and for tests"
        if not self._inner.linear_head:
            yield "the head of this model is more than a product, so PyTorch computed it"
        elif not self._costs.head:
            dtype = str(self._costs.dtype).removeprefix("torch.")
            yield f"log-probabilities of {dtype} models are computed by PyTorch, which is as good there"
        elif not self._trial.head:
            yield f"log-probabilities were computed by PyTorch: the kernel {self._trial.fault}"
        else:
            yield "log-probabilities were fused with the head (linear_logprob)"
        if self._prefix_kernel_ran:
            yield "a shared prefix was read from one copy (shared_prefix_attention)"

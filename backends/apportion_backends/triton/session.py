"""The session: the torch backend's, with the head and shared prefixes fused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from apportion.protocols.backend import WHITE_BOX, Capability, Layout, SessionInfo
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput
from apportion_backends.torch.head import Head, at_targets
from apportion_backends.torch.memory import translate_out_of_memory
from apportion_backends.torch.modes import scoring_mode
from apportion_backends.torch.packed_attention import TrunkAttention
from apportion_backends.torch.session import TorchSession
from apportion_backends.triton.costs import Costs
from apportion_backends.triton.linear_logprob import linear_logprob
from apportion_backends.triton.runtime import interpreting
from apportion_backends.triton.shared_prefix_attention import shared_prefix_attention
from apportion_backends.triton.trial import try_kernels

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TritonSession"]


class TritonSession:
    """A torch session that fuses the head and shared prefixes where that is faster.

    Kernels are tried before they are used, and again after the model's head was replaced or cast.

    Args:
        inner: the torch session, which does everything else.
        always: use every kernel that gives the right numbers.
    """

    def __init__(self, inner: TorchSession, *, always: bool = False) -> None:
        self._inner = inner
        self._always = always
        self._notes: dict[str, None] = {}
        # What gradient methods need they get from the torch backend: kernels have no backward here.
        self.capabilities: frozenset[Capability] = inner.capabilities - WHITE_BOX
        self._try()

    @property
    def info(self) -> SessionInfo:
        """Device, dtype and limits; notes say what was fused since the last ``release``, or why it was not."""
        info = self._inner.info
        return replace(info, backend="triton", notes=(*info.notes, *self._notes))

    @property
    def layout(self) -> Layout:
        """The torch session's layout."""
        return self._inner.layout

    @property
    def kept(self) -> ModelInput | None:
        """The rows or prefix that the torch session keeps."""
        return self._inner.kept

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self._inner.tokenizer

    @property
    def model(self) -> PreTrainedModel:
        """The model that scores.

        Raises:
            BackendError: the session is closed.
        """
        return self._inner.model

    def row_bytes(self, prefix: int, suffix: int, targets: int) -> int:
        """The torch session's estimate, which is an upper bound here too."""
        return self._inner.row_bytes(prefix, suffix, targets)

    def log_probs(self, batch: ScoringBatch) -> Float[Tensor, "B T"]:
        """Log-probabilities of the target tokens in every row, in fp32, on the CPU.

        Raises:
            BatchTooLargeError: memory ran out.
        """
        if self._inner.linear_head and _head_kind(self.model) != self._tried:
            self._try()
        left_to_torch = self._why_not_fused()
        if left_to_torch:
            self._notes[left_to_torch] = None
            return self._inner.log_probs(batch)
        self._note_fused("log-probabilities were fused with the head (linear_logprob)")
        with scoring_mode(self.model), translate_out_of_memory():
            head = Head.of(self.model)

            def score(states: Float[Tensor, "R D"], ids: Int[Tensor, " R"]) -> Float[Tensor, " R"]:
                states = states.to(head.weight.dtype)
                return linear_logprob(states, head.weight, ids, head.bias, soft_cap=head.soft_cap)

            found = at_targets(score, self._inner.hidden(batch), batch)
        # A copy made outside inference mode is an ordinary tensor, which the caller may modify.
        return found.cpu().clone()

    def logits(self, batch: ScoringBatch, rows: int) -> Iterator[Float[Tensor, "b T V"]]:
        """The torch session's logits."""
        self._notes["logits for the target function were computed by PyTorch"] = None
        return self._inner.logits(batch, rows)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens with which the model ends a generation."""
        return self._inner.end_ids

    def generate(
        self,
        prompt: ModelInput,
        options: Mapping[str, object],
        seed: int,
        room: int | None = None,
        stop: Sequence[str] = (),
    ) -> tuple[int, ...]:
        """The torch session's."""
        return self._inner.generate(prompt, options, seed, room, stop)

    def fingerprint(self) -> str:
        """The torch session's."""
        return self._inner.fingerprint()

    def checksum(self) -> str:
        """The torch session's."""
        return self._inner.checksum()

    def release(self) -> None:
        """Forget what was encoded, and the notes on it."""
        self._notes = {}
        self._inner.release()

    def close(self) -> None:
        """Release the model; idempotent."""
        self._inner.close()

    def _try(self) -> None:
        """Try the kernels on the model as it is, and choose which to use."""
        self._costs = Costs(self.model.dtype, always=self._always)
        self._trial = try_kernels(self._inner, self._costs)
        self._tried = _head_kind(self.model) if self._inner.linear_head else None
        least = self._costs.least_prefix if self._trial.prefixes else None
        self._inner.attend_by(None if least is None else TrunkAttention(least, self._attend))

    def _attend(self, *tensors: Tensor, scaling: float | None) -> Tensor:
        self._note_fused("a shared prefix was read from one copy (shared_prefix_attention)")
        return shared_prefix_attention(*tensors, scaling=scaling)

    def _why_not_fused(self) -> str:
        """The reason why PyTorch computes log-probabilities; empty if the kernel does."""
        if not self._inner.linear_head:
            return "the head of this model is more than a product, so PyTorch computed it"
        if not self._costs.head:
            dtype = str(self._costs.dtype).removeprefix("torch.")
            return f"log-probabilities of {dtype} models are computed by PyTorch, which is as exact"
        if not self._trial.head:
            return f"log-probabilities were computed by PyTorch: the kernel {self._trial.fault}"
        return ""

    def _note_fused(self, sentence: str) -> None:
        if interpreting():
            self._notes["Triton kernels were interpreted, which is slow and meant for tests"] = None
        self._notes[sentence] = None


def _head_kind(model: PreTrainedModel) -> tuple[object, ...]:
    """The properties of a head that decide if the kernel can read it."""
    head = Head.of(model)
    weight, bias = head.weight, head.bias
    return weight.dtype, weight.shape, weight.stride(), bias is None or bias.dtype, head.soft_cap, model.dtype

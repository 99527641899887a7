"""Comparison of ways to compute the same logits: what probes of all kinds of models share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from apportion.errors import ModelError
from apportion_backends.torch.inputs import input_device
from apportion_backends.torch.user_code import own_forward, user_hooks

__all__ = [
    "LIKE",
    "REFUSALS",
    "Comparing",
    "Traits",
    "beyond_probed",
    "difference",
    "longer_lengths",
    "plain_head",
    "random_tokens",
]

# The largest difference between two ways of computing the same logits, in units of their standard deviation.
# LIKE: the same operations on the same shapes, where rounding is the same too and only what is really seen
# makes a difference. UNLIKE: other shapes, where kernels round otherwise.
LIKE = 1e-4
UNLIKE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}

DYNAMIC = "torch.ao.nn.quantized.dynamic"
"""Modules of layers that ``quantize_dynamic`` makes."""

LONGEST_PROBED = 64
"""The largest critical size that is tried at once. Batches with rows beyond a larger one are compared with rows alone
when there are any, because forward passes of thousands of tokens would make every start slow."""

REFUSALS = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, AssertionError)
"""Errors by which model code refuses unknown arguments or unexpected shapes."""


@dataclass(frozen=True, slots=True)
class Traits:
    """The shortcuts that a model allows for the layout of rows and for its head.

    Attributes:
        batching: rows of one length may share a batch.
        padding: rows of different lengths may, padded on the right. Only an encoder reads a mask.
        prefix_sharing: a prefix may be encoded once.
        packing: rows may be read as a prefix tree.
        packing_limit: length of the longest packed row; ``None`` for any length.
        probed_length: length of rows up to which the findings are certain; ``None`` for any length.
        linear_head: logits are the output embedding, soft-capped where the configuration says so, applied to the base
            model's last hidden state; of an encoder–decoder model, to that of its decoder, which reads what its encoder
            made apart.
        supports_logits_to_keep: the model takes ``logits_to_keep`` as positions for each row.
    """

    batching: bool
    padding: bool
    prefix_sharing: bool
    packing: bool
    packing_limit: int | None
    probed_length: int | None
    linear_head: bool
    supports_logits_to_keep: bool

    @classmethod
    def none(cls) -> Traits:
        """No shortcut: rows are read alone, and the model makes its logits itself."""
        return cls(False, False, False, False, None, None, False, False)

    def without_places(self) -> Traits:
        """Only the shortcuts by which every token stands as far from the beginning as it does in a row alone.

        The model's own forward makes the logits, because a user's code may be part of it.
        """
        return replace(self, packing=False, prefix_sharing=False, linear_head=False)

    def notes(self) -> tuple[str, ...]:
        """Sentences for results, for what is out of the ordinary."""
        notes = []
        if not self.batching:
            notes.append("this model gives other numbers in a batch; rows are scored one at a time")
        elif not self.padding:
            notes.append("padding changes this model's numbers; batches hold rows of one length")
        return tuple(notes)


@runtime_checkable
class Case(Protocol):
    """Random tokens, and the logits that the model gives them."""

    @property
    def logits(self) -> Float[Tensor, "1 L V"]:
        """Logits of one row, read alone."""
        ...

    @property
    def length(self) -> int:
        """Number of the row's tokens that decide how attention works: L, or those of its prompt."""
        ...


AnyCase = TypeVar("AnyCase", bound=Case)


class Comparing(ABC, Generic[AnyCase]):
    """Compares the shortcuts that a model may allow with one-row forwards on random tokens.

    Args:
        model: the model, in ``scoring_mode``.
        kind: the kind of model that can be scored, for messages.
        reader: the kind of model whose logits do not depend on later tokens, for messages.

    Raises:
        ModelError: the model gives no logits for each token, or logits that are not finite.
    """

    def __init__(self, model: PreTrainedModel, kind: str, reader: str) -> None:
        self.model = model
        self.device = input_device(model)
        self._kind, self._reader = kind, reader
        self.first = self._first_case()
        finite = self.first.logits[self.first.logits.isfinite()]
        self.spread = float(finite.double().std())
        self.scale = self.spread or 1.0
        self.unlike = UNLIKE.get(model.dtype, 1e-4)

    @abstractmethod
    def first_case(self) -> AnyCase:
        """A short case; any of ``REFUSALS`` is raised if the model cannot read it."""

    @abstractmethod
    def traits(self) -> Traits:
        """The shortcuts that the model allows.

        Raises:
            ModelError: logits depend on later tokens, so that a target would see itself.
        """

    @abstractmethod
    def agrees(self, traits: Traits) -> bool:
        """A quick check that a model whose weights have changed still has these traits."""

    @abstractmethod
    def again(self, case: AnyCase, *, changed: bool) -> Float[Tensor, "1 L V"]:
        """The logits of a case once more, or with another last token."""

    def equal(self, ours: Tensor, reference: Tensor, tolerance: float | None = None) -> bool:
        """True if logits differ by less than rounding does."""
        if ours.shape != reference.shape:
            return False
        allowed = (self.unlike if tolerance is None else tolerance) * self.scale
        return float(difference(ours, reference).max()) <= allowed

    def check_causal(self, case: AnyCase) -> None:
        """Check that the logits of a case do not depend on later tokens.

        Raises:
            ModelError: they do, or they differ from call to call.
        """
        if self.equal(self.again(case, changed=True)[:, :-1], case.logits[:, :-1], LIKE):
            return
        name = type(self.model).__name__
        if not self.equal(self.again(case, changed=False), case.logits, LIKE):
            raise ModelError(
                f"{name} gives other logits each time for the same tokens, so that differences between prompts mean "
                "nothing. Switch off what draws random numbers or counts calls, such as a hook."
            )
        if any(type(module).__module__.startswith(DYNAMIC) for module in self.model.modules()):
            raise ModelError(
                "The layers of this model quantise all tokens of a forward pass by one scale (quantize_dynamic), "
                "so that a token's logits depend on later tokens. Quantise the weights alone, for example by "
                "torchao's Int8WeightOnlyConfig, or use the model as it was."
            )
        longer = "" if case is self.first else f" in rows of {case.length} tokens"
        raise ModelError(
            f"{name} is not {self._reader}{longer}: its logits depend on later tokens, so a target scored in one pass "
            "would see itself."
        )

    def _first_case(self) -> AnyCase:
        name = type(self.model).__name__
        try:
            case = self.first_case()
        except REFUSALS as error:
            raise ModelError(
                f"{name} does not give next-token logits in {self.model.dtype} on {self.device}: "
                f"{str(error).rstrip('.'):.300}. Give {self._kind} with a head, or try another dtype or device."
            ) from error
        logits, expected = case.logits, self.expected_tokens(case)
        if logits.shape[:2] != (1, expected):
            raise ModelError(
                f"{name} does not give logits for each token: those of {expected} tokens have the shape "
                f"{tuple(logits.shape)}. Give {self._kind} with a head."
            )
        # Tokens that a model never writes may have logits of -inf.
        usable = logits.isfinite()
        if bool((~usable & (logits != -torch.inf)).any()) or not bool(usable.any(-1).all()):
            raise ModelError(
                "The model's logits are not finite on random tokens. Check its weights, or use a dtype with a "
                "larger range (float32, bfloat16)."
            )
        return case

    def expected_tokens(self, case: AnyCase) -> int:
        """Number of tokens that must have logits."""
        return case.length


def difference(ours: Tensor, reference: Tensor) -> Tensor:
    """Absolute differences; equal infinities have none, because unused tokens may have logits of -inf."""
    return torch.where(ours == reference, 0, (ours - reference).abs())


def random_tokens(vocabulary: int, *shape: int, seed: int = 0) -> Int[Tensor, "*shape"]:
    """Random tokens from the middle of a vocabulary, where special ones are rare."""
    draw = torch.Generator().manual_seed(seed)
    low = vocabulary // 4
    return torch.randint(low, max(low + 1, vocabulary - low), shape, generator=draw)


def longer_lengths(sizes: Iterable[int], shortest: int, limit: int | None) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Lengths of a long row and of shorter ones, around the sizes at which a model's attention changes.

    Args:
        sizes: the critical sizes of the model.
        shortest: long rows are longer than this.
        limit: the most tokens that the model reads; ``None`` for any number.
    """
    for size in (size for size in sizes if size <= LONGEST_PROBED):
        # Which of many keys are attended to may depend on the length, where several rank alike.
        several = (size + 1, size + 3, 2 * size + 1, 3 * size + 2)
        for long, shorter in ((size + 2, (size - 1,)), (2 * size + 3, (size + 1,)), (4 * size + 5, several)):
            if long > shortest and (limit is None or long <= limit):
                yield long, shorter


def beyond_probed(sizes: Iterable[int]) -> int | None:
    """Length of rows up to which a probe's findings are certain; ``None`` for any length."""
    return next((size for size in sizes if size > LONGEST_PROBED), None)


def plain_head(model: PreTrainedModel, *around: nn.Module) -> nn.Linear | None:
    """The output layer if its weight is a matrix that can be cut into slices; else ``None``.

    Args:
        model: the model.
        around: other modules that make logits of hidden states; a user's code in one of them, which no probe can vouch
            for, counts as in the layer.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or _overridden(head, *around):
        return None
    # Quantised and offloaded weights are no such matrices.
    if type(head.weight) not in (Tensor, nn.Parameter) or head.weight.is_meta:
        return None
    # The parts may be on several devices; the model's own forward moves between them.
    return None if getattr(model, "hf_device_map", None) else head


def _overridden(*modules: nn.Module) -> bool:
    return any([*user_hooks(module)] or own_forward(module) for module in modules)

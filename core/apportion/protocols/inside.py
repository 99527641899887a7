"""Access to a model's gradients and internals, for white-box methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.backend import Session

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "NO_EDITS",
    "Edits",
    "EmbeddedBatch",
    "Gradients",
    "Inside",
    "InsideSession",
    "ModuleGradients",
    "Side",
    "Trace",
]

Side = Literal["output", "input"]
"""What a module returns, or what it reads."""


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes to what modules return or read, by name of the module, for the duration of a forward pass.

    A function receives tensors of the computation graph and returns a tensor of the same shape, which takes their
    place: the one it received, to only look at it, or another one, to replace it or its gradient. If a module reads or
    returns several things, it receives the first tensor. Functions may be called once more with the same tensors,
    where a backward pass computes a layer again to save memory.

    Attributes:
        outputs: functions of the module, its input and its output; ``Float[B, L, D]`` for most modules.
        inputs: functions of the module and its input.
    """

    outputs: Mapping[str, Callable[[nn.Module, Tensor | None, Tensor], Tensor]] = field(default_factory=dict)
    inputs: Mapping[str, Callable[[nn.Module, Tensor], Tensor]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.outputs or self.inputs)


NO_EDITS = Edits()
"""A forward pass as the model makes it."""


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """B prompts of equal length given by their input embeddings, each followed by the same target.

    Attributes:
        prompts: embeddings of the prompts, without the prefix.
        target: T token ids; the last one is predicted and not read.
        prefix: tokens before each prompt. They need no gradient, so a session may read them once.
        following: embeddings of the T − 1 target tokens that are read; ``None`` for the target's own.
        edits: changes to what modules return or read.
        ids: tokens of the full prompt that the embeddings stand for, with the prefix, by which a session can check that
            it reads them alike; empty if there is no such prompt.
    """

    prompts: Float[Tensor, "B P D"]
    target: tuple[int, ...]
    prefix: tuple[int, ...] = ()
    following: Float[Tensor, "B N D"] | None = None
    edits: Edits = NO_EDITS
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """Internals of one forward pass, detached.

    Decoder-only models read the prompt and all but the last target token as one sequence of L tokens. In
    encoder–decoder models L is the number of tokens that the decoder reads: one or more tokens of its own at the start,
    and all but the last target token. The encoder reads the P tokens of the prompt. In both, the last T tokens are
    those that predict the target.

    Attributes:
        hidden: the embeddings, then the output of each layer, of width D, as the model returns them; empty unless
            requested.
        attentions: the attention weights of each layer, H heads each; empty unless requested. A row has the weights
            with which one token attends to all tokens.
        modules: output of each named module, without the batch; the first tensor if it returns several.
        encoder_hidden: the same as ``hidden`` for the encoder, if there is one.
        encoder_attentions: the same as ``attentions`` for the encoder, if there is one.
        cross_attentions: the weights with which the decoder attends to the prompt, of each of its layers.
        attention_modules: names of the modules that attend with the weights in ``attentions``; empty if unknown. In
            hybrid models, not all layers attend.
    """

    hidden: tuple[Float[Tensor, "L D"], ...] = ()
    attentions: tuple[Float[Tensor, "H L L"], ...] = ()
    modules: Mapping[str, Tensor] = field(default_factory=dict)
    encoder_hidden: tuple[Float[Tensor, "P D"], ...] = ()
    encoder_attentions: tuple[Float[Tensor, "H P P"], ...] = ()
    cross_attentions: tuple[Float[Tensor, "H L P"], ...] = ()
    attention_modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gradients:
    """Values of B prompts, and their gradients with respect to input embeddings, detached.

    Attributes:
        values: column 0 for the whole target, then one column per token.
        prompt: gradient of each of the O outputs with respect to the embeddings of each prompt. O = K, or 1 (the whole
            target) with ``tokens=False``.
        generated: the same with respect to the embeddings of the N = T − 1 target tokens that are read, if these were
            given.
    """

    values: Float[Tensor, "B K"]
    prompt: Float[Tensor, "O B P D"]
    generated: Float[Tensor, "O B N D"] | None = None


@dataclass(frozen=True, slots=True)
class ModuleGradients:
    """Values of B prompts, and their gradients with respect to what modules return or read, detached.

    Attributes:
        values: column 0 for the whole target, then one column per token.
        activations: what each module returned or read, by name: one mapping for the target, and one for its contrast
            if it has one; ``Float[B, L, D]`` for most modules.
        gradients: gradient of each of the O outputs with respect to each of these; zero where a module has no effect.
            Empty if none were asked for.
    """

    values: Float[Tensor, "B K"]
    activations: tuple[Mapping[str, Float[Tensor, "B ..."]], ...]
    gradients: tuple[Mapping[str, Float[Tensor, "O B ..."]], ...]


@runtime_checkable
class Inside(Protocol):
    """Access to the model's internals for one prompt and target, as white-box methods get it: ``game.inside()``.

    Everything done through it counts in the game: evaluations, tokens, and the budget. A forward pass over B prompts
    counts as B evaluations, with or without backward passes.
    """

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The P tokens of the prompt with all features, special tokens included."""
        ...

    @property
    def feature_of(self) -> tuple[int | None, ...]:
        """The feature of each of the prompt's P tokens; ``None`` for a token that belongs to no feature."""
        ...

    @property
    def special(self) -> tuple[bool, ...]:
        """True for each of the prompt's P tokens that is a special token of the tokenizer, such as a start token."""
        ...

    @property
    def fixed(self) -> int:
        """Number of tokens at the start of the prompt that belong to no feature."""
        ...

    @property
    def joint(self) -> bool:
        """True if prompt and target are read as one sequence, as in decoder-only models."""
        ...

    @property
    def targets(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of the target, then those of its contrast if it has one. Each takes a forward pass of its own."""
        ...

    @property
    def generated_feature_of(self) -> tuple[int | None, ...]:
        """The feature of each of the T − 1 target tokens that are read; ``None`` if generated tokens get no scores."""
        ...

    @property
    def unit(self) -> str:
        """Unit of the values, such as ``"nats"``."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that encoded the prompt."""
        ...

    @property
    def stationary(self) -> bool:
        """True if all gradients at the prompt are 0, because the score compares prompts with this very prompt."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number of tokens that have embeddings and are known to the tokenizer; their ids begin with 0."""
        ...

    @property
    def batch_rows(self) -> int:
        """Number of prompts that fit the memory budget in one forward pass with backward passes; at least 1."""
        ...

    def rows_beside(self, extra: int) -> int:
        """As ``batch_rows``, if each prompt takes ``extra`` bytes more, such as gradients of many modules."""
        ...

    def modules(self) -> Mapping[str, nn.Module]:
        """All modules of the model, by name, for their classes and settings. They must not be changed or called."""
        ...

    def embeddings(self, ids: Sequence[int] | None = None) -> Float[Tensor, "P D"]:
        """Input embeddings of the prompt, or of other tokens, detached, on the session's device."""
        ...

    def following(self) -> Float[Tensor, "N D"]:
        """Embeddings of the N = T − 1 target tokens that are read, detached."""
        ...

    def values(
        self,
        points: Float[Tensor, "B P D"],
        *,
        following: Float[Tensor, "B N D"] | None = None,
        edits: Edits = NO_EDITS,
    ) -> Float[Tensor, "B K"]:
        """Compute the values of B prompts from their input embeddings, with the run's target function.

        Differentiable with respect to its arguments, except under ``torch.no_grad()``. If only gradients are needed,
        use ``gradients``, which keeps to the memory budget.

        Args:
            points: embeddings of whole prompts, or of prompts without their ``fixed`` first tokens. These are then the
                prompt's own, and are read only once where the model allows it.
            following: embeddings of the target tokens that are read; ``None`` for the target's own.
            edits: changes to what modules return or read; for whole prompts only.

        Returns:
            Column 0 for the whole target, then one column per token; float64 on the CPU.

        Raises:
            InputError: shapes do not fit, or a module does not exist.
            ScoreError: a value is not finite.
        """
        ...

    def gradients(
        self,
        points: Float[Tensor, "B P D"],
        *,
        following: Float[Tensor, "B N D"] | None = None,
        edits: Edits = NO_EDITS,
        tokens: bool = True,
        together: bool = False,
    ) -> Gradients:
        """Compute values and their gradients with respect to input embeddings.

        One forward pass for all outputs, and one backward pass per output. A single prompt whose computation graph
        exceeds the memory budget is computed layer by layer, twice.

        Args:
            points: as in ``values``.
            following: embeddings of the target tokens that are read, to get gradients for them too.
            edits: as in ``values``.
            tokens: compute gradients for each target token too, not only for the whole target.
            together: read all prompts in one batch, even beyond the memory budget, because edits compare the first with
                the others. Only the gradients of the first must be finite.

        Raises:
            InputError: shapes do not fit, or a module does not exist.
            ScoreError: a value or a gradient is not finite.
        """
        ...

    def module_gradients(
        self,
        points: Float[Tensor, "B P D"],
        names: Sequence[str],
        *,
        side: Side = "output",
        given: Sequence[Mapping[str, Float[Tensor, "B ..."]]] = (),
        following: Float[Tensor, "B N D"] | None = None,
        edits: Edits = NO_EDITS,
        tokens: bool = True,
        together: bool = False,
        slopes: bool = True,
    ) -> ModuleGradients:
        """Compute values and their gradients with respect to what modules return or read.

        Args:
            points: embeddings of whole prompts.
            names: names of modules.
            side: what they return (``"output"``) or read (``"input"``).
            given: activations that take the place of the modules' own: one mapping for the target, and one for its
                contrast if it has one. Nothing then flows back from one module to an earlier one.
            following: embeddings of the target tokens that are read; ``None`` for the target's own.
            edits: changes to what other modules return or read.
            tokens: compute gradients for each target token too, not only for the whole target.
            together: as in ``gradients``.
            slopes: compute gradients; else ``gradients`` is empty, and only values and activations are found.

        Raises:
            InputError: a module does not exist, or is not called, or returns no tensor.
            ScoreError: a value or a gradient is not finite.
        """
        ...

    def trace(
        self,
        *,
        hidden: bool = False,
        attentions: bool = False,
        modules: Sequence[str] = (),
        edits: Edits = NO_EDITS,
        last: int | None = None,
    ) -> Trace:
        """Return internals of one forward pass over the prompt and the target; one evaluation.

        Args:
            hidden: return hidden states.
            attentions: return attention weights.
            modules: names of modules whose outputs are returned.
            edits: changes to what modules return or read.
            last: return only the attention weights of so many last tokens (of a decoder, not of an encoder), which take
                far less memory; ``None`` for those of all tokens.

        Raises:
            InputError: a module does not exist, is not called, or returns no tensor.
            CapabilityError: the model gives no attention weights.
        """
        ...


@runtime_checkable
class InsideSession(Session, Protocol):
    """A session with the capability ``GRADIENTS``, ``HIDDEN_STATES`` or ``ATTENTIONS``.

    Even after an error, the model's mode, flags and hooks are left unchanged.
    """

    def modules(self) -> Mapping[str, nn.Module]:
        """All modules of the model, by name."""
        ...

    def embeddings(self, ids: tuple[int, ...], *, target: bool = False) -> Float[Tensor, "L D"]:
        """Input embeddings of tokens, detached, on the session's device.

        Args:
            ids: token ids.
            target: as the target is read, if the model reads it with other embeddings than the prompt.
        """
        ...

    def forward(
        self, batch: EmbeddedBatch, *, recompute: bool = False
    ) -> AbstractContextManager[Float[Tensor, "B T V"]]:
        """Context of a forward pass and its backward passes: the logits at the position before each target token.

        The logits are fp32 or better, and differentiable. Edits, and the model's mode, last until the context ends.

        Args:
            batch: prompts and target.
            recompute: keep only what enters each layer, and compute the layer again in each backward pass. All
                backward passes must then end before the context does.

        Raises:
            InputError: embeddings of another width than the model's, or an unknown module.
            BatchTooLargeError: memory ran out.
        """
        ...

    def graph_bytes(self, prompt: int, target: int) -> int:
        """Upper estimate of the memory, in bytes, of one row's forward pass with what its backward pass needs."""
        ...

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
        """Internals of one forward pass over a prompt and all but the last token of a target.

        With ``last``, ``attentions`` and ``cross_attentions`` have the rows of so many last tokens alone.

        Raises:
            InputError: a module does not exist, is not called, or returns no tensor.
            CapabilityError: the model does not return attention weights.
        """
        ...

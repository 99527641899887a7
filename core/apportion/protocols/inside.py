"""Access to a model's gradients and internals, for white-box methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.backend import Session

__all__ = ["Inside", "InsideSession", "Trace"]


@dataclass(frozen=True, slots=True)
class Trace:
    """Internals of one forward pass over the prompt and all but the last target token, L tokens in total.

    Attributes:
        hidden: the embeddings, then the output of each layer, of width D, as the model returns them; empty unless
            requested.
        attentions: the attention weights of each layer, H heads each; empty unless requested.
        modules: output of each named module, without the batch; the first tensor if it returns several.
    """

    hidden: tuple[Float[Tensor, "L D"], ...] = ()
    attentions: tuple[Float[Tensor, "H L L"], ...] = ()
    modules: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inside:
    """Access to the model's internals for one prompt and target, as white-box methods get it: ``game.inside()``.

    Everything done through it counts in the game: evaluations, tokens, and the budget.

    Attributes:
        prompt_ids: the prompt with all features, special tokens included.
        feature_of: the feature of each of the prompt's P tokens; ``None`` for a token that belongs to no feature.
        embeddings: returns the input embeddings of the prompt, detached.
        values: computes the values of B prompts from their input embeddings, with the run's target function: column 0
            for the whole target, then one column per token. Differentiable with respect to its argument; B evaluations.
        trace: returns internals of one forward pass:
            ``trace(hidden=True, attentions=True, modules=["lm_head"])``; one evaluation.
    """

    prompt_ids: tuple[int, ...]
    feature_of: tuple[int | None, ...]
    embeddings: Callable[[], Float[Tensor, "P D"]]
    values: Callable[[Float[Tensor, "B P D"]], Float[Tensor, "B K"]]
    trace: Callable[..., Trace]


@runtime_checkable
class InsideSession(Session, Protocol):
    """A session with the capability ``GRADIENTS``, ``HIDDEN_STATES`` or ``ATTENTIONS``.

    Even after an error, the model's mode, flags and hooks are left unchanged.
    """

    def embeddings(self, ids: tuple[int, ...]) -> Float[Tensor, "L D"]:
        """Input embeddings of tokens, detached, on the session's device."""
        ...

    def logits_of(self, embeddings: Float[Tensor, "B P D"], target: tuple[int, ...]) -> Float[Tensor, "B T V"]:
        """Logits at the position before each target token, fp32 or better; differentiable.

        Args:
            embeddings: input embeddings of the prompts.
            target: token ids that follow each prompt.

        Raises:
            BatchTooLargeError: memory ran out.
        """
        ...

    def trace(
        self, ids: tuple[int, ...], *, hidden: bool = False, attentions: bool = False, modules: Sequence[str] = ()
    ) -> Trace:
        """Internals of one forward pass over these tokens.

        Raises:
            InputError: a module does not exist.
            CapabilityError: the model does not return attention weights.
        """
        ...

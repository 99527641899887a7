"""Access to a model's inside, for gradient and internals methods."""

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
    """Internals of one forward over the prompt and all but the last target token, L tokens in all.

    Attributes:
        hidden: the embeddings, then the output of each layer, D wide, as the model itself gives them; empty unless
            asked for.
        attentions: the attention weights of each layer, H heads each; empty unless asked for.
        modules: the output of each named module.
    """

    hidden: tuple[Float[Tensor, "L D"], ...] = ()
    attentions: tuple[Float[Tensor, "H L L"], ...] = ()
    modules: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inside:
    """The model around one prompt and target, as a white-box method sees it: ``game.inside()``.

    Everything that it does counts in the game: evaluations, tokens, and the budget.

    Attributes:
        prompt_ids: the prompt with all features, special tokens included.
        feature_of: the feature of each of its P tokens; ``None`` for those that belong to none.
        embeddings: the input embeddings of the prompt, detached.
        values: values of B prompts given by their input embeddings, by the run's own target function: column 0 for the
            whole target, then one for each token. Differentiable with respect to its argument; B evaluations.
        trace: internals of one forward, one evaluation: ``trace(hidden=True, attentions=True, modules=["lm_head"])``.
    """

    prompt_ids: tuple[int, ...]
    feature_of: tuple[int | None, ...]
    embeddings: Callable[[], Float[Tensor, "P D"]]
    values: Callable[[Float[Tensor, "B P D"]], Float[Tensor, "B K"]]
    trace: Callable[..., Trace]


@runtime_checkable
class InsideSession(Session, Protocol):
    """A session with the capability ``GRADIENTS``, ``HIDDEN_STATES`` or ``ATTENTIONS``.

    Whatever happens, the model is left as it was: mode, flags and hooks.
    """

    def embeddings(self, ids: tuple[int, ...]) -> Float[Tensor, "L D"]:
        """Input embeddings of tokens, detached, on the session's device."""
        ...

    def logits_of(self, embeddings: Float[Tensor, "B P D"], target: tuple[int, ...]) -> Float[Tensor, "B T V"]:
        """Logits at the position before each target token, fp32 or better; differentiable.

        Args:
            embeddings: of the prompts.
            target: token ids that follow each of them.

        Raises:
            BatchTooLargeError: memory ran out.
        """
        ...

    def trace(
        self, ids: tuple[int, ...], *, hidden: bool = False, attentions: bool = False, modules: Sequence[str] = ()
    ) -> Trace:
        """Internals of one forward over these tokens.

        Raises:
            InputError: there is no module of this name.
            CapabilityError: the model does not give attention weights.
        """
        ...

"""The protocol that turns a prompt into features and model inputs.

An input adapter names the F features of a prompt and renders coalitions: for every row of a ``Bool[S, F]`` mask it
returns the model input in which the features that are ``True`` are present, and the others are absent (removed, or
replaced by their baseline).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool
from torch import Tensor

from apportion.protocols.features import Feature
from apportion.protocols.row import ModelInput

__all__ = ["Alternatives", "InputAdapter", "PromptRenderer"]


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Several renderings of one coalition, whose values are averaged with equal weights.

    An adapter with K baseline draws returns K inputs for every coalition, always in the same order. So every coalition
    is averaged over the same draws, and efficiency holds.
    """

    inputs: tuple[ModelInput, ...]


@runtime_checkable
class InputAdapter(Protocol):
    """A prompt, split into features.

    Optional attributes, read if they exist:

    - ``segments``: ``Sequence[Segment]``, the full prompt in order, for highlighted text, and for targets: the text
      that they continue, if the adapter did not encode it with its context.
    - ``pictures``: ``Sequence[Picture]``, the pictures of the prompt, whose regions are features, for views.
    - ``draws``: ``int``, inputs per coalition when ``render`` returns ``Alternatives`` (default 1).
    - ``notes``: ``Sequence[str]``, sentences to include in the result.
    - ``feature_of_token``: ``Sequence[int | None]``, the feature of each token of the full prompt, for prompts whose
      segments and tokenizer offsets do not determine it.
    - ``levels``: ``Sequence[Level]``, coarser groupings of the features, the coarsest first, each nested in the one
      before: documents, then their sentences, when the features are words. Each has at least two groups, and fewer
      groups than there are features.
    - ``baseline_ids``: ``Sequence[int]``, the tokens that replace every absent feature, if they are the same for all;
      with ``attribute_generated=True`` they replace absent tokens of the target, too, which are otherwise left out.
    """

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, in the order of the mask's columns."""
        ...

    def render(self, mask: Bool[Tensor, "S F"]) -> Sequence[ModelInput | Alternatives]:
        """The model input of every coalition, in the order of the rows."""
        ...


@runtime_checkable
class PromptRenderer(Protocol):
    """An adapter's ``render`` with inputs that can be scored: ``request.renderer``."""

    @property
    def draws(self) -> int:
        """Number of inputs per coalition."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the result."""
        ...

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Sequence[ModelInput | Alternatives]:
        """Render coalitions to inputs of at least one token each."""
        ...

    def full(self) -> ModelInput:
        """The prompt with all features present."""
        ...

    def empty(self) -> ModelInput:
        """The prompt with all features absent; the first of its alternatives, if it has some."""
        ...

    def start(self) -> int | None:
        """The token that an empty prompt begins with, if the tokenizer has one."""
        ...

    def note(self, text: str | None) -> None:
        """Add a sentence for the result; ``None`` adds nothing."""
        ...

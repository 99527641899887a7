"""Model inputs, and the protocol that turns a prompt into features and inputs.

An input adapter names the F features of a prompt and renders coalitions: for every row of a
``Bool[S, F]`` mask it gives the model input in which the features that are ``True`` are present and
the others absent (removed, or replaced by their baseline).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Bool
from torch import Tensor

from apportion.protocols.features import Feature

__all__ = ["Alternatives", "InputAdapter", "ModelInput"]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What one forward of the model reads before the target: token ids, special tokens included."""

    ids: tuple[int, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Adapters may give lists; inputs are compared and remembered, so they must not change.
        object.__setattr__(self, "ids", tuple(self.ids))
        # A game looks each input up several times, and tuples do not remember theirs.
        object.__setattr__(self, "_hash", hash(self.ids))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Several renderings of one coalition, whose values are averaged with equal weights.

    An adapter with K baseline draws returns K inputs for every coalition, in the same order of
    draws, so that every coalition is averaged over the same draws and efficiency holds.
    """

    inputs: tuple[ModelInput, ...]


@runtime_checkable
class InputAdapter(Protocol):
    """A prompt, cut into features.

    Optional attributes, read when they exist:

    - ``segments``: ``Sequence[Segment]``, the full prompt in order, for coloured text.
    - ``draws``: ``int``, inputs per coalition when ``render`` returns ``Alternatives`` (default 1).
    - ``notes``: ``Sequence[str]``, sentences that belong into the result.
    - ``feature_of_token``: ``Sequence[int | None]``, the feature of each token of the full prompt, where its segments
      and the tokenizer's offsets cannot tell.
    - ``levels``: ``Sequence[Level]``, coarser cuts of the features, the coarsest first, each nested in the one
      before: documents, then their sentences, when the features are words. Each has fewer groups than there
      are features, and two or more.
    """

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, in the order of the mask's columns."""
        ...

    def render(self, mask: Bool[Tensor, "S F"]) -> Sequence[ModelInput | Alternatives]:
        """The model input of every coalition, in the order of the rows."""
        ...

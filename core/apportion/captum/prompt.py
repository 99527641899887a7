"""Perturbations of an interpretable input as a prompt of ``Explainer``; this module is the plugin that adapts it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool
from torch import Tensor

from apportion.hooks.hookspecs import hookimpl
from apportion.protocols.features import Feature
from apportion.protocols.row import ModelInput

if TYPE_CHECKING:
    from apportion.captum.perturbations import Perturbations
    from apportion.protocols.inputs import InputAdapter
    from apportion.rendering.context import AdaptContext

__all__ = ["PerturbedPrompt", "apportion_adapt_input"]


@dataclass(frozen=True)
class PerturbedPrompt:
    """A prompt whose coalitions are perturbed tensors.

    Attributes:
        perturbations: the tensors of coalitions.
        labels: names of the elements, for results.
        encode: returns the model input of a perturbed tensor.
        tokens: the element that each token of the prompt is, if elements are tokens; ``None`` for a token that is none.
        baseline: the token that replaces absent ones, if elements are tokens.
    """

    perturbations: Perturbations
    labels: Sequence[Any]
    encode: Callable[[Tensor], ModelInput]
    tokens: Sequence[int | None] | None = None
    baseline: int | None = None


class _Adapter:
    def __init__(self, prompt: PerturbedPrompt) -> None:
        self._prompt = prompt
        feature_of = prompt.perturbations.feature_of.tolist()
        members: list[list[str]] = [[] for _ in range(prompt.perturbations.count)]
        for element, feature in enumerate(feature_of):
            label = prompt.labels[element] if len(prompt.labels) == len(feature_of) else f"feature {element}"
            members[feature].append(str(label))
        self.features = tuple(
            Feature(f"{number}: {', '.join(texts)}", " ".join(texts), members=tuple(texts) if len(texts) > 1 else ())
            for number, texts in enumerate(members)
        )
        if prompt.tokens is not None:
            self.feature_of_token = tuple(None if one is None else feature_of[one] for one in prompt.tokens)
        if prompt.baseline is not None:
            self.baseline_ids = (prompt.baseline,)

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput]:
        return [self._prompt.encode(tensor) for tensor in self._prompt.perturbations.tensors(mask)]


@hookimpl
def apportion_adapt_input(prompt: object, context: AdaptContext) -> InputAdapter | None:
    """Adapt perturbed prompts."""
    return _Adapter(prompt) if isinstance(prompt, PerturbedPrompt) else None

"""Protocols of the classes that wrap a method, for methods and scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from apportion.captum.explainers import Explainers
from apportion.captum.inputs import InterpretableInput

__all__ = ["GradientWrapper", "PerturbationWrapper", "Wrapper"]


class Wrapper(Protocol):
    """A wrapper of a method for a language model.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        device: where it is.
        attr_method: the method.
        explainers: open the model for fast scoring.
    """

    model: Any
    tokenizer: Any
    device: Any
    attr_method: Any
    explainers: Explainers

    def _format_model_input(self, model_input: str | Tensor | Mapping[str, Any]) -> dict[str, Any]: ...


class PerturbationWrapper(Wrapper, Protocol):
    """A wrapper that scores perturbed inputs.

    Attributes:
        attr_target: ``"log_prob"`` or ``"prob"``.
        include_per_token_attr: the method gives scores of tokens.
    """

    attr_target: str
    include_per_token_attr: bool

    def scores_in_batches(self) -> bool:
        """Return whether batches reproduce the forward function."""

    def prompt_text(self, model_input: Any) -> str:
        """Return the text of a model input."""

    def _forward_func(
        self,
        perturbed_tensor: Tensor | None,
        inp: InterpretableInput,
        target_tokens: Tensor,
        use_cached_outputs: bool = ...,
        _inspect_forward: Any = ...,
        forward_in_tokens: bool = ...,
    ) -> Tensor: ...


class GradientWrapper(Wrapper, Protocol):
    """A wrapper that differentiates."""

    def scores_at_once(self) -> bool:
        """Return whether the model reads token ids as this class passes them on."""

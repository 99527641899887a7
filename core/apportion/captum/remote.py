"""Attribution of a remote language model's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from apportion.captum.explainers import Explainers
from apportion.captum.inputs import InterpretableInput
from apportion.captum.llm_attribution import DEFAULT_GEN_ARGS, LLMAttribution
from apportion.captum.perturbation_methods import PerturbationAttribution
from apportion.captum.provider import RemoteLLMProvider
from apportion.captum.refusals import require
from apportion.captum.scoring import Inspect
from apportion.captum.served import ServerProvider

__all__ = ["RemoteLLMAttribution"]


class _PlaceholderModel:
    """Stands for the model in the constructor of a method."""

    device = torch.device("cpu")

    def __call__(self, *args: Any, **kwargs: Any) -> int:
        return 0


class RemoteLLMAttribution(LLMAttribution):
    """Attribution of a remote model, by perturbation; the provider is asked once for each distinct prompt.

    A ``ServerProvider`` is asked for many prompts at once.

    Args:
        attr_method: a method, made with ``RemoteLLMAttribution.placeholder_model``.
        tokenizer: the model's tokenizer.
        provider: gives the log-probabilities of targets.
        attr_target: ``"log_prob"`` or ``"prob"``.
    """

    placeholder_model: ClassVar[Any] = _PlaceholderModel()

    def __init__(
        self,
        attr_method: PerturbationAttribution,
        tokenizer: Any,
        provider: RemoteLLMProvider,
        attr_target: str = "log_prob",
    ) -> None:
        super().__init__(attr_method, tokenizer, attr_target)
        self.provider = provider
        if isinstance(provider, ServerProvider):
            self.explainers = Explainers(self.model, tokenizer, opened=provider.explainer)

    def scores_in_batches(self) -> bool:
        """Return whether the provider scores several prompts at once, as the forward function scores one."""
        own = type(self)._forward_func is RemoteLLMAttribution._forward_func
        return own and isinstance(self.provider, ServerProvider)

    def _get_target_tokens(
        self,
        inp: InterpretableInput,
        target: str | Tensor | None = None,
        gen_args: Mapping[str, Any] | None = None,
        skip_tokens: Sequence[int] | Sequence[str] | None = None,
    ) -> Int[Tensor, " T"]:
        if target is None:
            self._check_input(inp)
            generate: Callable[..., str] | None = getattr(self.provider, "generate", None)
            require(
                callable(generate),
                "The provider does not have generate function for generating target sequence. Target must be given "
                "for attribution",
            )
            assert generate is not None
            target = generate(self._format_remote_model_input(inp.to_model_input()), **(gen_args or DEFAULT_GEN_ARGS))
            gen_args = None
        return super()._get_target_tokens(inp, target, gen_args, skip_tokens)

    def _format_remote_model_input(self, model_input: str | Tensor) -> str:
        """The prompt as a text."""
        if isinstance(model_input, Tensor):
            return str(self.tokenizer.decode(model_input.flatten()))
        return model_input

    def prompt_text(self, model_input: Any) -> str:
        """Return the text of a model input, for ``_inspect_forward``."""
        return self._format_remote_model_input(model_input)

    def _forward_func(
        self,
        perturbed_tensor: Tensor | None,
        inp: InterpretableInput,
        target_tokens: Tensor,
        use_cached_outputs: bool = False,
        _inspect_forward: Inspect | None = None,
        forward_in_tokens: bool = False,
    ) -> Tensor:
        """Score one input.

        Raises:
            ValueError: the provider returned another number of log-probabilities.
        """
        prompt = self._format_remote_model_input(inp.to_model_input(perturbed_tensor))
        found = self.provider.get_logprobs(
            input_prompt=prompt, target_str=self.tokenizer.decode(target_tokens), tokenizer=self.tokenizer
        )
        if len(found) != len(target_tokens):
            raise ValueError(
                f"Number of token logprobs from provider ({len(found)}) does not match expected target token length "
                f"({len(target_tokens)})"
            )
        values = self._totalled(torch.tensor([float(one) for one in found]))
        if _inspect_forward is not None:
            self._tell(_inspect_forward, prompt, target_tokens, values)
        return values

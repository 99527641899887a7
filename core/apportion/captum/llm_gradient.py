"""Attribution of a language model's output to the tokens of its input, by gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from apportion.captum.hooked import TokenFunction
from apportion.captum.inputs import InterpretableInput, TextTokenInput
from apportion.captum.layer_methods import (
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LayerMethod,
)
from apportion.captum.layers_at_once import TokenScores, token_scores
from apportion.captum.llm_attribution import BaseLLMAttribution
from apportion.captum.pretty_tokens import pretty_tokens
from apportion.captum.refusals import require
from apportion.captum.result import LLMAttributionResult
from apportion.scoring.readout import log_probs_of

__all__ = ["GradientForward", "LLMGradientAttribution"]


class GradientForward(nn.Module):
    """The score of one target token, as a function of the perturbed input.

    Args:
        wrapper: gives the model and the tokenizer.
    """

    def __init__(self, wrapper: LLMGradientAttribution) -> None:
        super().__init__()
        self.wrapper = wrapper
        self.model = wrapper.model

    def forward(
        self, perturbed_tensor: Tensor, inp: InterpretableInput, target_tokens: Tensor, cur_target_idx: int
    ) -> Float[Tensor, " B"]:
        """Log-probability of a target token after those before it, for each row."""
        require(not self.wrapper.reads_apart(), "layers of an encoder–decoder are not scored token by token")
        ids = self.wrapper._format_model_input(inp.to_model_input(perturbed_tensor))["input_ids"]
        before = target_tokens[:cur_target_idx].to(ids).expand(len(ids), -1)
        logits = self.model(torch.cat([ids, before], dim=1)).logits[:, -1:]
        return log_probs_of(logits, (int(target_tokens[cur_target_idx]),))[:, 0]

    def function_of(self, inputs: Tensor, baselines: object, arguments: object) -> TokenFunction:
        """The function that ``attribute`` of a method differentiates.

        Raises:
            AssertionError: an argument is not allowed.
        """
        require(
            isinstance(arguments, tuple) and len(arguments) == 3,
            f"additional_forward_args must be (input, target tokens, number of one), not {arguments!r:.80}",
        )
        given = 0 if baselines is None else baselines
        absent = given if isinstance(given, Tensor) and given.ndim == 2 else torch.as_tensor(given).expand_as(inputs)
        require(absent.shape[-1] == inputs.shape[-1], f"baselines have shape {tuple(absent.shape)}")
        return TokenFunction(lambda rows: self(rows, *arguments), inputs, absent.to(inputs))  # type: ignore[misc]


class LLMGradientAttribution(BaseLLMAttribution):
    """Attribution by gradients at layers.

    Args:
        attr_method: a ``LayerIntegratedGradients``, ``LayerGradientXActivation`` or ``LayerGradientShap``, made with
            the model and one of its modules, or a list of them.
        tokenizer: the model's tokenizer.

    Raises:
        AssertionError: the method is not supported.
    """

    SUPPORTED_METHODS: ClassVar = (LayerGradientShap, LayerGradientXActivation, LayerIntegratedGradients)
    SUPPORTED_INPUTS: ClassVar = (TextTokenInput,)

    def __init__(self, attr_method: LayerMethod, tokenizer: Any) -> None:
        super().__init__(attr_method, tokenizer)
        self.attr_method.forward_func = GradientForward(self)

    def attribute(
        self,
        inp: InterpretableInput,
        target: str | Tensor | None = None,
        gen_args: Mapping[str, Any] | None = None,
        skip_tokens: Sequence[int] | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score the tokens of an input for each target token; the scores of the whole target are their sums.

        Args:
            inp: the input.
            target: a text, encoded without special tokens, or token ids ``Int[T]``; ``None`` for what the model
                generates.
            gen_args: arguments of ``generate``; only without a target.
            skip_tokens: tokens, or their ids, that are left out of the target, as in Captum 0.7.
            **kwargs: further arguments of the method's ``attribute``, such as ``n_steps``.

        Returns:
            An ``LLMAttributionResult``; for a list of modules, a list of them (where Captum fails). With
            ``return_convergence_delta=True``, also the deltas of the target tokens, ``[T]`` (where Captum fails).

        Raises:
            AssertionError, TypeError: an argument is not allowed.
        """
        target_tokens = self._get_target_tokens(inp, target, gen_args, skip_tokens)
        assert isinstance(inp, TextTokenInput)
        found = token_scores(self, inp, target_tokens, kwargs) or self._by_token(inp, target_tokens, kwargs)
        tokens = pretty_tokens(target_tokens, self.tokenizer)
        results = [
            LLMAttributionResult(
                seq_attr=scores.sum(0), token_attr=scores, input_tokens=inp.values, output_tokens=tokens, inp=inp
            )
            for scores in found.scores
        ]
        shaped = results[0] if isinstance(self.attr_method.layer, nn.Module) else results
        return (shaped, found.deltas) if kwargs.get("return_convergence_delta") else shaped

    def scores_at_once(self) -> bool:
        """Return whether the model reads token ids as this class passes them on."""
        return type(self)._format_model_input is BaseLLMAttribution._format_model_input

    def _by_token(self, inp: TextTokenInput, target_tokens: Tensor, options: Mapping[str, Any]) -> TokenScores:
        """Scores by the method's own ``attribute``, one target token after the other."""
        tensor = inp.to_tensor().to(self.device)
        rows: list[list[Tensor]] = []
        deltas = []
        for number in range(len(target_tokens)):
            found = self.attr_method.attribute(tensor, additional_forward_args=(inp, target_tokens, number), **options)
            if options.get("return_convergence_delta"):
                found, delta = found
                deltas.append(delta.mean())
            parts = [found] if isinstance(found, Tensor) else found
            rows.append([self._of_prompt(inp, part, number) for part in parts])
        scores = [torch.cat(part) for part in zip(*rows, strict=True)]
        return TokenScores(scores, torch.stack(deltas) if deltas else None)

    def _of_prompt(self, inp: TextTokenInput, found: Tensor, before: int) -> Float[Tensor, "1 F"]:
        """Scores of the prompt's features, summed over dimensions, without those of the target before the token.

        Raises:
            AssertionError: the model read another number of tokens than the input has.
        """
        scores = found.detach()[:, : found.shape[1] - before].sum(-1)
        mask = torch.ones_like(inp.inp_tensor, dtype=torch.bool) if inp.itp_mask is None else inp.itp_mask
        require(
            scores.shape == mask.shape,
            f"the layer has {scores.shape[1]} positions, and the input {mask.shape[1]} tokens",
        )
        return scores[mask.to(scores.device)][None]

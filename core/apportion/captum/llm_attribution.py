"""Attribution of a language model's output to features of its input, by perturbation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from apportion.captum.explainers import Explainers
from apportion.captum.image_input import ImageMaskInput
from apportion.captum.inputs import (
    InterpretableInput,
    TextTemplateInput,
    TextTokenInput,
    drawn,
    draws_baselines,
    token_ids,
)
from apportion.captum.perturbation_methods import (
    FeatureAblation,
    KernelShap,
    Lime,
    PerturbationAttribution,
    ShapleyValues,
    ShapleyValueSampling,
)
from apportion.captum.pretty_tokens import pretty_tokens
from apportion.captum.refusals import RefusedError, WrongTypeError, positive, require
from apportion.captum.result import LLMAttributionResult
from apportion.captum.scoring import Inspect, Question, Scorer
from apportion.scoring.readout import log_probs_of

__all__ = ["DEFAULT_GEN_ARGS", "BaseLLMAttribution", "LLMAttribution"]

DEFAULT_GEN_ARGS: dict[str, Any] = {"max_new_tokens": 25, "do_sample": False, "temperature": None, "top_p": None}
PLAIN_INPUTS = (TextTemplateInput, TextTokenInput, ImageMaskInput)
FORWARD_FUNCTIONS = ("_forward_func", "_forward_func_by_seq", "_forward_func_by_tokens")


class BaseLLMAttribution:
    """A wrapper of a method, for a language model.

    Args:
        attr_method: the method, made with the model.
        tokenizer: the model's tokenizer.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        device: where it is.
        attr_method: a copy of the method, whose ``attribute`` a subclass may call.
        explainers: open the model for fast scoring.

    Raises:
        AssertionError: the class does not support this method.
    """

    SUPPORTED_INPUTS: ClassVar[tuple[type, ...]] = ()
    SUPPORTED_METHODS: ClassVar[tuple[type, ...]] = ()

    def __init__(self, attr_method: Any, tokenizer: Any) -> None:
        require(
            isinstance(attr_method, self.SUPPORTED_METHODS),
            f"{type(self).__name__} does not support {type(attr_method)}; it supports "
            f"{', '.join(kind.__name__ for kind in self.SUPPORTED_METHODS)} of apportion.captum",
        )
        self.forward_func = self.model = attr_method.forward_func
        self.tokenizer = tokenizer
        self.device: torch.device = torch.device(
            self.model.device if hasattr(self.model, "device") else next(self.model.parameters()).device
        )
        # A shallow copy leaves the caller's method as it is.
        self.attr_method: Any = copy(attr_method)
        self.explainers = Explainers(self.model, tokenizer)

    def attribute_future(self) -> Callable[[], LLMAttributionResult]:
        """Not implemented.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"attribute_future is not implemented for {type(self).__name__}")

    def _get_target_tokens(
        self,
        inp: InterpretableInput,
        target: str | Tensor | None = None,
        gen_args: Mapping[str, Any] | None = None,
        skip_tokens: Sequence[int] | Sequence[str] | None = None,
    ) -> Int[Tensor, " T"]:
        """Token ids of the target; without one, of what the model generates.

        Raises:
            AssertionError: the input is not supported, the model cannot generate, both a target and ``gen_args`` are
                given, or the target has no tokens.
            TypeError: the target is neither a text nor a tensor.
        """
        self._check_input(inp)
        skipped = torch.tensor(token_ids(skip_tokens, self.tokenizer))
        if target is None:
            require(
                callable(getattr(self.model, "generate", None)),
                "The model does not have recognizable generate function. Target must be given for attribution",
            )
            model_inp = self._format_model_input(inp.to_model_input())
            generated = self.model.generate(**model_inp, **(gen_args or DEFAULT_GEN_ARGS))
            # What an encoder–decoder returns begins with a start token instead of the prompt.
            prompt = 1 if self.reads_apart() else model_inp["input_ids"].size(1)
            found = generated[0][prompt:]
        else:
            require(gen_args is None, "gen_args must be None when target is given")
            if isinstance(target, str):
                found = torch.tensor(list(self.tokenizer.encode(target, add_special_tokens=False)), dtype=torch.long)
            elif isinstance(target, Tensor):
                found = target
            else:
                raise WrongTypeError(f"target must either be str or Tensor, but the type of target is {type(target)}")
            found = found[~torch.isin(found.cpu(), skipped).to(found.device)] if len(skipped) else found
        require(
            found.ndim == 1, f"the target must be a 1D tensor of token ids, not {tuple(found.shape)}: {target!r:.60}"
        )
        require(len(found) > 0, f"the target has no tokens: {target!r:.60}")
        tokens: Tensor = found
        return tokens

    def reads_apart(self) -> bool:
        """Return whether the model reads the target apart from the prompt, as encoder–decoders do."""
        return bool(getattr(getattr(self.model, "config", None), "is_encoder_decoder", False))

    def _check_input(self, inp: object) -> None:
        require(
            isinstance(inp, self.SUPPORTED_INPUTS),
            f"{type(self).__name__} does not support input type {type(inp)}; it supports "
            f"{', '.join(kind.__name__ for kind in self.SUPPORTED_INPUTS)} of apportion.captum",
        )

    def _format_model_input(self, model_input: str | Tensor | Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the model: a text is encoded, and a tensor is its ``"input_ids"``.

        Raises:
            AssertionError: the input is something else.
        """
        if isinstance(model_input, str):
            model_input = self.tokenizer.encode(model_input, return_tensors="pt")
        if isinstance(model_input, Tensor):
            return {"input_ids": model_input.to(self.device)}
        if not isinstance(model_input, Mapping):
            raise RefusedError(f"Invalid model input. {type(model_input)}")
        return {**model_input}


class LLMAttribution(BaseLLMAttribution):
    """Attribution by perturbation.

    Args:
        attr_method: a ``FeatureAblation``, ``ShapleyValueSampling``, ``ShapleyValues``, ``Lime`` or ``KernelShap``,
            made with the model. The last two give no scores of single tokens, as in Captum.
        tokenizer: the model's tokenizer.
        attr_target: ``"log_prob"`` or ``"prob"``: what is scored, of the whole target and of each token.

    Raises:
        AssertionError: the method or ``attr_target`` is not supported.
    """

    SUPPORTED_METHODS: ClassVar = (FeatureAblation, ShapleyValueSampling, ShapleyValues, Lime, KernelShap)
    SUPPORTED_PER_TOKEN_ATTR_METHODS: ClassVar = (FeatureAblation, ShapleyValueSampling, ShapleyValues)
    SUPPORTED_INPUTS: ClassVar = (TextTemplateInput, TextTokenInput, ImageMaskInput, InterpretableInput)

    def __init__(self, attr_method: PerturbationAttribution, tokenizer: Any, attr_target: str = "log_prob") -> None:
        super().__init__(attr_method, tokenizer)
        self.include_per_token_attr = isinstance(attr_method, self.SUPPORTED_PER_TOKEN_ATTR_METHODS)
        self.attr_method.forward_func = self._forward_func
        require(attr_target in ("log_prob", "prob"), "attr_target should be either 'log_prob' or 'prob'")
        self.attr_target = attr_target
        self.scorer = Scorer(self)

    def attribute(
        self,
        inp: InterpretableInput,
        target: str | Tensor | None = None,
        num_trials: int = 1,
        gen_args: Mapping[str, Any] | None = None,
        use_cached_outputs: bool = True,
        _inspect_forward: Inspect | None = None,
        forward_in_tokens: bool = True,
        skip_tokens: Sequence[int] | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> LLMAttributionResult:
        """Score the features of an input.

        Args:
            inp: the input.
            target: a text, encoded without special tokens, or token ids ``Int[T]``; ``None`` for what the model
                generates.
            num_trials: number of trials, whose scores are averaged. Each draws its baselines and coalitions anew.
            gen_args: arguments of ``generate``; only without a target. By default, 25 tokens, greedily.
            use_cached_outputs: has no effect; Captum's cache gives wrong numbers with transformers 5.
            _inspect_forward: called with the prompt, the response, and the probabilities of the target and its tokens,
                for each input that is scored.
            forward_in_tokens: score the target as uncached decoding, token by token, would. Causal models give the same
                in one pass, so that this makes a difference only for others.
            skip_tokens: tokens, or their ids, that are left out of the target, as in Captum 0.7.
            **kwargs: further arguments of the method's ``attribute``, such as ``n_samples`` or ``feature_mask``.

        Returns:
            Scores in fp32, on the model's device.

        Raises:
            AssertionError, TypeError: an argument is not allowed.
        """
        positive("num_trials", num_trials)
        target_tokens = self._get_target_tokens(inp, target, gen_args, skip_tokens)
        # Inputs of a user's class may draw in ways of their own.
        draws = draws_baselines(inp) or type(inp) not in PLAIN_INPUTS
        alike = not draws and not getattr(self.attr_method, "random", True) and _inspect_forward is None
        trials = 1 if alike else num_trials
        one = Question(drawn(inp), target_tokens, use_cached_outputs, _inspect_forward, forward_in_tokens)
        total: Any = 0.0
        for number in range(trials):
            if draws and number:
                one = replace(one, inp=drawn(inp), known={})
            found = self.attr_method.attribute(
                one.inp.to_tensor().to(self.device), additional_forward_args=(one.inp, target_tokens, one), **kwargs
            )
            total = total + found.reshape(-1, found.shape[-1]).double()
        attr = inp.format_attr((total / trials).to(self.device, torch.float))
        return LLMAttributionResult(
            seq_attr=attr[0],
            token_attr=attr[1:] if self.include_per_token_attr else None,
            input_tokens=inp.values,
            output_tokens=pretty_tokens(target_tokens, self.tokenizer),
            inp=inp,
        )

    def scores_in_batches(self) -> bool:
        """Return whether the forward functions are those of this class, which batches reproduce."""
        return all(getattr(type(self), name) is getattr(LLMAttribution, name) for name in FORWARD_FUNCTIONS)

    def prompt_text(self, model_input: Any) -> str:
        """Return the text of a model input, for ``_inspect_forward``."""
        text: str = self.tokenizer.decode(self._format_model_input(model_input)["input_ids"][0])
        return text

    def _forward_func(
        self,
        perturbed_tensor: Tensor | None,
        inp: InterpretableInput,
        target_tokens: Tensor,
        use_cached_outputs: bool = False,
        _inspect_forward: Inspect | None = None,
        forward_in_tokens: bool = True,
    ) -> Tensor:
        """Score one input: ``[1, 1 + T]``, or a number for methods without scores of tokens."""
        if forward_in_tokens:
            return self._forward_func_by_tokens(
                perturbed_tensor, inp, target_tokens, use_cached_outputs, _inspect_forward
            )
        return self._forward_func_by_seq(perturbed_tensor, inp, target_tokens)

    def _forward_func_by_seq(
        self, perturbed_tensor: Tensor | None, inp: InterpretableInput, target_tokens: Tensor
    ) -> Tensor:
        """Score one input in one forward pass over the prompt and the target."""
        arguments = self._format_model_input(inp.to_model_input(perturbed_tensor))
        ids = arguments["input_ids"]
        logits = self._logits(arguments, torch.cat([ids, target_tokens[None].to(ids)], dim=1))
        last = ids.shape[1] - 1
        return self._scored(logits[last : last + len(target_tokens)], target_tokens)

    def _forward_func_by_tokens(
        self,
        perturbed_tensor: Tensor | None,
        inp: InterpretableInput,
        target_tokens: Tensor,
        use_cached_outputs: bool = False,
        _inspect_forward: Inspect | None = None,
    ) -> Tensor:
        """Score one input in a forward pass for each target token, without a cache."""
        arguments = self._format_model_input(inp.to_model_input(perturbed_tensor))
        ids = start = arguments["input_ids"]
        rows = []
        for token in target_tokens:
            rows.append(self._logits({**arguments, "use_cache": False}, ids)[-1])
            ids = torch.cat([ids, token.reshape(1, 1).to(ids)], dim=1)
        found = self._scored(torch.stack(rows), target_tokens)
        if _inspect_forward is not None:
            self._tell(_inspect_forward, self.tokenizer.decode(start[0]), target_tokens, found)
        return found

    def _logits(self, arguments: Mapping[str, Any], ids: Int[Tensor, "1 L"]) -> Tensor:
        """Logits ``[L, V]`` of a sequence, with the other arguments of the model as they are."""
        require(not self.reads_apart(), "an encoder–decoder is scored in batches only, and not by a forward function")
        attended = torch.ones(1, ids.shape[1], dtype=torch.long, device=ids.device)
        given = {**arguments, "input_ids": ids, "attention_mask": attended}
        with torch.no_grad():
            logits: Tensor = self.model.forward(**given).logits
        # Some models return [1, 1, L, V].
        return logits.reshape(logits.shape[-2:])

    def _scored(self, logits: Tensor, target_tokens: Tensor) -> Tensor:
        """Scores of the target and its tokens, from the logits ``[T, V]`` that predict them."""
        return self._totalled(log_probs_of(logits[None], tuple(target_tokens.tolist()))[0])

    def _totalled(self, each: Float[Tensor, " T"]) -> Tensor:
        """Scores of the target and its tokens, from the log-probabilities of the tokens."""
        found = torch.cat([each.sum()[None], each])[None] if self.include_per_token_attr else each.sum()
        return found.exp() if self.attr_target == "prob" else found

    def _tell(self, inspect: Inspect, prompt: str, target_tokens: Tensor, scores: Tensor) -> None:
        """Call ``_inspect_forward`` with the probabilities behind scores."""
        probs = scores if self.attr_target == "prob" else scores.exp()
        inspect(prompt, self.tokenizer.decode(target_tokens), probs.flatten().tolist())

"""Values of perturbed inputs: in batches by an ``Explainer`` where that is exact, else row by row as Captum does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apportion.captum.draws import GlobalDraws, Known, game_of
from apportion.captum.image_input import ImageMaskInput
from apportion.captum.image_prompt import FunctionProcessor, form_of
from apportion.captum.inputs import InterpretableInput
from apportion.captum.perturbations import Perturbations
from apportion.captum.prompt import PerturbedPrompt
from apportion.captum.refusals import require
from apportion.errors import PluginError
from apportion.hooks.manager import installed_plugins, load_plugins
from apportion.protocols.progress import ALWAYS, ProgressEvent
from apportion.protocols.row import Media, ModelInput

if TYPE_CHECKING:
    from apportion.captum.wrappers import PerturbationWrapper
    from apportion.protocols.methods import Method

__all__ = ["Question", "Scorer", "named_method"]

Inspect = Callable[[str, str, list[float]], None]


@dataclass(frozen=True)
class Question:
    """The input and target of one trial.

    Attributes:
        inp: the input, with baselines that stay as they are.
        target: token ids.
        cached: passed on to ``_forward_func``.
        inspect: called with the prompt, the response and the probabilities of each input that is scored.
        in_tokens: passed on to ``_forward_func``.
        known: values of coalitions, for further trials with the same input.
    """

    inp: InterpretableInput
    target: Int[Tensor, " T"]
    cached: bool = True
    inspect: Inspect | None = None
    in_tokens: bool = True
    known: Known = field(default_factory=dict, compare=False)


def named_method(name: str) -> Method:
    """A method that comes with apportion."""
    found: Method = installed_plugins()["methods"].get(name).make()
    return found


def only_ids(arguments: Mapping[str, Any]) -> bool:
    """True if token ids are all that a model is given, beside a mask that hides none."""
    mask = arguments.get("attention_mask")
    hides = isinstance(mask, Tensor) and not bool(mask.all())
    return arguments.keys() <= {"input_ids", "attention_mask"} and not hides


class Scorer:
    """Answers questions about the inputs of one ``LLMAttribution``.

    Models of transformers are scored in batches, all target tokens in one pass. Anything else, and whatever a subclass
    computes by a ``_forward_func`` of its own, is scored by the forward function, one coalition at a time.

    Args:
        owner: gives the model, the tokenizer and the forward function.
    """

    def __init__(self, owner: PerturbationWrapper) -> None:
        self._owner = owner
        self._processors: dict[str, FunctionProcessor] = {}

    def estimate(
        self,
        question: Question,
        perturbations: Perturbations,
        method: Method,
        options: Mapping[str, Any],
        *,
        show_progress: bool = False,
    ) -> Float[Tensor, "F K"]:
        """Run a method, which draws from PyTorch's generator; K is 1 + T, or 1 if there are no scores of tokens."""
        draws = GlobalDraws(method, options, question.known, self._observer(question, perturbations))
        values = self._in_batches(question, perturbations, draws, show_progress=show_progress)
        if values is None:
            values = self._by_row(question, perturbations, draws, show_progress=show_progress)
        torch.set_rng_state(draws.end)
        return values

    def _in_batches(
        self, question: Question, perturbations: Perturbations, method: GlobalDraws, *, show_progress: bool
    ) -> Float[Tensor, "F K"] | None:
        owner, inp = self._owner, question.inp
        if not owner.scores_in_batches():
            return None
        processor = self._processor(inp)
        if processor is None and not only_ids(owner._format_model_input(inp.to_model_input())):
            return None
        explainer = owner.explainers.get(show_progress=show_progress, processor=processor)
        if explainer is None:
            return None

        failed: list[Exception] = []

        def encode(tensor: Tensor) -> ModelInput:
            try:
                return self._pictured(inp, processor, tensor) if processor is not None else self._encoded(inp, tensor)
            except Exception as error:
                failed.append(error)
                raise

        prompt = PerturbedPrompt(perturbations, inp.values, encode)
        try:
            result = explainer.attribute(prompt, question.target.tolist(), method=method, target_fn=owner.attr_target)
        except PluginError as error:
            # A user's template or tokenizer failed, and not apportion.
            raise (failed[0] if failed else error) from None
        return torch.cat([torch.tensor(result.values)[None], torch.tensor(result.token_values)]).T

    def _encoded(self, inp: InterpretableInput, tensor: Tensor) -> ModelInput:
        """The token ids of a perturbed tensor."""
        arguments = self._owner._format_model_input(inp.to_model_input(tensor))
        (ids,) = arguments["input_ids"].tolist()
        require(only_ids(arguments), "some prompts are more than token ids, and the full one is not")
        return ModelInput(tuple(ids))

    def _pictured(self, inp: InterpretableInput, processor: FunctionProcessor, tensor: Tensor) -> ModelInput:
        """The token ids and the picture of a perturbed tensor."""
        assert isinstance(inp, ImageMaskInput)
        pixels = inp.pixels(tensor)
        (ids,) = processor.arguments(pixels)["input_ids"].tolist()
        return ModelInput(tuple(ids), (Media.of("image", pixels, partial(inp.pixels, tensor)),))

    def _processor(self, inp: InterpretableInput) -> FunctionProcessor | None:
        """The function of an image input, as a processor; ``None`` for inputs of text, and where it makes a text."""
        owner = self._owner
        if type(inp) is not ImageMaskInput or not isinstance(inp.original_model_inputs, Mapping):
            return None
        if inp.image.mode != "RGB" or only_ids(owner._format_model_input(inp.original_model_inputs)):
            return None
        form = form_of(inp.original_model_inputs)
        known = self._processors.get(form)
        if known is None:
            self._processors[form] = FunctionProcessor(inp.processor_fn, form, owner.tokenizer, owner.model)
            return self._processors[form]
        known.use(inp.processor_fn)
        return known

    def _by_row(
        self, question: Question, perturbations: Perturbations, method: GlobalDraws, *, show_progress: bool
    ) -> Float[Tensor, "F K"]:
        forward = self._owner._forward_func
        plugins = load_plugins(switches={"progress": ALWAYS if show_progress else False})
        started = time.perf_counter()

        def values(mask: Bool[Tensor, "S F"]) -> Float[Tensor, "S K"]:
            rows: list[Tensor] = []
            for tensor in perturbations.tensors(mask):
                plugins.report(ProgressEvent("score", len(rows), len(mask)))
                found = forward(tensor, question.inp, question.target, question.cached, None, question.in_tokens)
                rows.append(found.detach().double().cpu().flatten())
            plugins.report(ProgressEvent("score", len(rows), len(mask), evaluations=len(rows)))
            return torch.stack(rows)

        outputs = 1 + len(question.target) if self._owner.include_per_token_attr else 1
        try:
            with torch.no_grad():
                game = game_of(values, perturbations.count, outputs)
                return method.run(game, budget=None, rng=torch.Generator()).values
        finally:
            plugins.report(ProgressEvent("end", seconds=time.perf_counter() - started))

    def _observer(
        self, question: Question, perturbations: Perturbations
    ) -> Callable[[Bool[Tensor, "S F"], Float[Tensor, "S K"]], None]:
        inspect, owner = question.inspect, self._owner

        def observe(mask: Bool[Tensor, "S F"], values: Float[Tensor, "S K"]) -> None:
            if inspect is None:
                return
            response = owner.tokenizer.decode(question.target)
            outputs = values if owner.include_per_token_attr else values[:, :1]
            probs = outputs if owner.attr_target == "prob" else outputs.exp()
            for tensor, row in zip(perturbations.tensors(mask), probs.tolist(), strict=True):
                inspect(owner.prompt_text(question.inp.to_model_input(tensor)), response, row)

        return observe

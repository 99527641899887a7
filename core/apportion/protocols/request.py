"""The request of a run, with every name resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apportion.protocols.inputs import InputAdapter, PromptRenderer
    from apportion.protocols.methods import Method
    from apportion.protocols.row import ModelInput
    from apportion.protocols.targets import Target, TargetFunction

__all__ = ["Request", "StepFunction"]


@dataclass(frozen=True, slots=True)
class StepFunction:
    """A target function whose value is recorded for each target token of the full prompt, beside the attributions.

    Attributes:
        name: name of its scores in the result.
        target_fn_name: name of the target function.
        target_fn: the target function.
        options: its options as the user gave them.
        reference: the prompt that it compares the full prompt with; ``None`` if it compares with none.
    """

    name: str
    target_fn_name: str
    target_fn: TargetFunction
    options: Mapping[str, Any]
    reference: ModelInput | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One call of ``attribute``, checked and resolved; observers receive it.

    Attributes:
        id: id of the run, which also appears in its events and hooks.
        model: name of the model.
        prompt: the prompt as the user gave it.
        adapter: splits the prompt into features; with ``attribute_generated=True`` the target, too.
        renderer: renders coalitions to inputs that can be scored.
        target: the output to explain, generated already if the user gave none.
        method_name: name of the method that runs, after ``"auto"`` is resolved.
        method: the method itself.
        method_reason: the reason why ``"auto"`` chose it; empty if the user did.
        method_notes: sentences for the result, if ``"auto"`` could not choose a method for Shapley values.
        options: the method's options, with samplers resolved.
        given_options: the method's options as the user gave them.
        all_options: the given options, those that ``"auto"`` set, and the defaults of the others.
        generation: options of the generation, if the model wrote the target or writes texts.
        target_fn_name: name of the target function in results.
        target_fn: the target function.
        target_options: its options as the user gave them.
        reference: the prompt that the target function compares all others with; ``None`` if it compares with none.
        budget: maximum number of distinct evaluations, the user's or that of ``"auto"``; ``None`` for no limit.
        coalition_budget: the same limit in coalitions; each takes one evaluation per baseline draw.
        until: largest standard error allowed; the run stops once every standard error of the whole target is at most
            this. ``None`` to spend the whole budget.
        seed: seed of every random draw.
        scorers: name and distribution of each plugin that may score batches, except built-in ones.
        given: the arguments ``method``, ``target_fn`` and ``features`` as the user gave them.
        step_scores: target functions to record for each token.
        step_contrast: the target that contrastive ones among them compare with, which may be one that the explained
            function does not use.
        samples: number of texts that the model writes after each prompt, for a target function that needs ``TEXT``; 0
            for other functions.
    """

    id: str
    model: str
    prompt: object
    adapter: InputAdapter
    renderer: PromptRenderer
    target: Target
    method_name: str
    method: Method
    method_reason: str
    method_notes: tuple[str, ...]
    options: Mapping[str, Any]
    given_options: Mapping[str, Any]
    all_options: Mapping[str, Any]
    generation: Mapping[str, object]
    target_fn_name: str
    target_fn: TargetFunction
    target_options: Mapping[str, Any]
    reference: ModelInput | None
    budget: int | None
    coalition_budget: int | None
    seed: int
    until: float | None = None
    scorers: tuple[tuple[str, str], ...] = ()
    given: Mapping[str, object] = field(default_factory=dict)
    step_scores: tuple[StepFunction, ...] = ()
    step_contrast: Target | None = None
    samples: int = 0

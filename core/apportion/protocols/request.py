"""What a run was asked to do, with every name resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apportion.protocols.inputs import InputAdapter, PromptRenderer
    from apportion.protocols.methods import Method
    from apportion.protocols.row import ModelInput
    from apportion.protocols.targets import Target, TargetFunction

__all__ = ["Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """One call of ``attribute``, checked and resolved; observers receive it.

    Attributes:
        id: names the run; events and hooks about it carry the same.
        model: the name of what is explained.
        prompt: as the user gave it.
        adapter: its features.
        renderer: coalitions to inputs that can be scored.
        target: what is explained, generated already if the user gave none.
        method_name: the method that runs, after ``"auto"`` was resolved.
        method: the method itself.
        method_reason: why ``"auto"`` chose it.
        options: the method's options, samplers resolved.
        given_options: the same as the user typed them.
        all_options: these, and the defaults of the others.
        generation: options of the generation, where the model wrote the target.
        target_fn_name: how results call the target function.
        target_fn: the target function.
        target_options: its options as the user typed them.
        reference: the prompt that the target function compares all others with; ``None``: it does not.
        budget: the most distinct evaluations; ``None`` for no limit.
        coalition_budget: the same in coalitions, which take one evaluation for each baseline draw.
        until: the standard error below which sampling may end; ``None``: it spends the budget.
        seed: of every draw.
        scorers: name and distribution of plugins, besides the built-in ones, that may score batches.
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

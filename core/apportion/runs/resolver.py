"""Turns the arguments of ``attribute`` into a ``Request``: resolves names and rejects mistakes without the model."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.errors import (
    CapabilityError,
    InputError,
    PluginError,
    counted,
    listing,
    shown,
)
from apportion.failures import failures_of_plugin
from apportion.game.method_runner import rehearse
from apportion.hooks.object_check import protocol_faults
from apportion.options import (
    check_instance,
    check_options,
    checked_seed,
    name_of,
    named_options,
    true_or_false,
    whole_number,
)
from apportion.prompts.text import Text
from apportion.protocols.backend import Capability, Session
from apportion.protocols.inputs import InputAdapter, PromptRenderer
from apportion.protocols.inside import InsideSession
from apportion.protocols.methods import Method
from apportion.protocols.request import Request
from apportion.protocols.targets import Needs, Target, TargetFunction
from apportion.rendering.chat_hint import chat_hint
from apportion.rendering.context import AdaptContext
from apportion.rendering.generated import GeneratedAdapter
from apportion.rendering.prompt_text import FullPrompt
from apportion.rendering.renderer import Renderer
from apportion.rendering.spelling import Spelling
from apportion.rendering.token_texts import note_on_unknown
from apportion.runs.advice import advice_on_prompt, check_arguments
from apportion.runs.auto import UNTIL_BUDGET, Choice, choose_method
from apportion.runs.generation import Generation, generation_of
from apportion.runs.step_functions import StepFunctions, step_functions
from apportion.runs.target_functions import check_contrast, check_scores, compares_with_contrast, made_target_function
from apportion.runs.target_text import Targets
from apportion.runs.text_values import check_method, checked_samples

if TYPE_CHECKING:
    from apportion.hooks.manager import Plugins
    from apportion.hooks.registry import Registry

__all__ = ["Draft", "Resolver", "limits", "with_sampler"]

ATTENDING = " Attention weights take a model that attends, loaded with attn_implementation='sdpa' or 'eager'."


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that may still lack a target, which the model has to write.

    Attributes:
        prompt: the prompt with all features.
        target: the target that the user gave; ``None`` if the model has to write it.
        contrast: the target that the target function, or a step score, compares with, if there is one.
        generation: options of the generation; ``None`` if the user gave a target.
        seed: seed of the run.
        spellings: other spellings of the target and the contrast.
        parts: all other fields of the request, for a target whose tokens are not features.
        extended: makes the fields that differ if they are, once the target is known; ``None`` if they are not.
    """

    prompt: FullPrompt
    target: Target | None
    contrast: Target | None
    generation: Generation | None
    seed: int
    spellings: Sequence[Spelling]
    parts: Mapping[str, Any]
    extended: Callable[[Target], Mapping[str, Any]] | None = None

    def request(self, target: Target) -> Request:
        """Complete the request with the target that was given or generated.

        Raises:
            InputError: the contrast is equal to the target, or an argument does not suit the features of the target.
            BudgetError: the budget is too small for the features of the prompt and the target.
        """
        if self.contrast is not None and self.contrast.ids == target.ids:
            raise InputError(f"The contrast {self.contrast.text!r} is equal to the target; give another one.")
        parts = self.parts if self.extended is None else {**self.parts, **self.extended(target)}
        explained = self.contrast if compares_with_contrast(parts["target_fn"]) else None
        return Request(target=replace(target, contrast=explained), step_contrast=self.contrast, **parts)


class Resolver:
    """Resolves the arguments of one explainer's calls.

    Args:
        plugins: registries in which names are looked up.
        session: session with its capabilities and tokenizer.
        targets: makes targets for the session.

    Attributes:
        targets: the same.
    """

    def __init__(self, plugins: Plugins, session: Session, targets: Targets) -> None:
        self.targets = targets
        self._plugins = plugins
        self._session = session

    def draft(
        self,
        request_id: str,
        *,
        prompt: object,
        target: object = None,
        method: str | Method = "auto",
        features: object = None,
        target_fn: object = "log_prob",
        contrast: object = None,
        target_options: Mapping[str, Any] | None = None,
        budget: int | None = None,
        until: float | None = None,
        max_std_error: float | None = None,
        seed: int = 0,
        generate: Mapping[str, object] | None = None,
        attribute_generated: bool = False,
        samples: int | None = None,
        step_scores: object = None,
        **method_options: Any,
    ) -> Draft:
        """Check everything that can be checked without the model.

        The arguments are those of ``Explainer.attribute``; any others are options of the method.

        Raises:
            InputError: an argument is invalid.
            CapabilityError: the session lacks a capability that the method needs.
        """
        budget, until = limits(budget, until, max_std_error)
        seed = checked_seed(seed)
        true_or_false("attribute_generated", attribute_generated)
        target_fn_name, target_fn_object, steps = self.functions(target_fn, target_options, step_scores, contrast)
        texts = 0
        if target_fn_object.needs is Needs.TEXT or samples is not None:
            texts = checked_samples(
                self._session, target_fn_name, target_fn_object, samples, attribute_generated=attribute_generated
            )
        writes = target is None or texts > 0
        if not writes and generate is not None:
            raise InputError("generate= applies only if the model writes the target; omit generate= or target=.")
        if writes:
            generation_of(generate, None)  # only to refuse mistakes before the prompt is read
        other = None if contrast is None else self.targets.checked("contrast", contrast)
        given = None if target is None else self.targets.checked("target", target)
        context = AdaptContext.of_session(self._session, seed, request_id, make=self._plugins.make)
        adapter = self.adapter(prompt, features, context)
        renderer = Renderer(adapter, context)
        reference = getattr(target_fn_object, "reference", None)

        def of_features(adapter: InputAdapter, renderer: Renderer) -> dict[str, Any]:
            chosen = self.chosen(method, renderer, len(adapter.features), budget, method_options)
            if texts:
                check_method(chosen["method_name"], chosen["method"], target_fn_name)
            return {"adapter": adapter, "renderer": renderer, "reference": renderer.reference(reference), **chosen}

        def extended(target: Target) -> dict[str, Any]:
            whole = GeneratedAdapter(adapter, target)
            return of_features(whole, renderer.of(whole))

        parts: dict[str, Any] = {"adapter": adapter, "renderer": renderer}
        if target is None or not attribute_generated:
            # If the model has yet to write tokens that are features, there are at least those of the prompt.
            parts = of_features(adapter, renderer)
        if target is None:
            self._rehearse(parts, seed)
        full = self._full_prompt(prompt, renderer, generated=target is None)
        generation = None
        if writes:
            generation = generation_of(generate, None if full.text is None else full.text.text)
        parts |= {
            "id": request_id,
            "model": self._session.info.model,
            "prompt": prompt,
            "given_options": method_options,
            "generation": {} if generation is None else generation.to_dict(),
            "target_fn_name": target_fn_name,
            "target_fn": target_fn_object,
            "target_options": dict(target_options or {}),
            "step_scores": steps.on(renderer) if steps else (),
            "until": until,
            "seed": seed,
            "samples": texts,
            "scorers": self._plugins.scorers(),
            "given": {"method": method, "target_fn": target_fn, "features": features},
        }
        made = None if given is None else self._target(given, full, as_text=texts > 0)
        compared = None if other is None else self.targets.given("contrast", other, full)
        return Draft(
            full,
            made,
            compared,
            generation if target is None else None,
            seed,
            self.targets.spellings([(given, made), (other, compared)], full),
            parts,
            extended if attribute_generated else None,
        )

    def adapter(self, prompt: object, features: object, context: AdaptContext) -> InputAdapter:
        """Find the adapter for a prompt, from the first plugin that claims it."""
        if isinstance(prompt, str):
            prompt = Text(prompt) if features is None else Text(prompt, by=features)  # type: ignore[arg-type]
        elif features is not None:
            raise InputError(
                f"features= applies to plain strings only, and this prompt is of type {type(prompt).__name__}. "
                f"{advice_on_prompt(prompt) or 'It defines its own features.'}"
            )
        found: InputAdapter | None = self._plugins.call("apportion_adapt_input", prompt=prompt, context=context)
        if found is None:
            raise InputError(
                f"This {type(prompt).__name__} is not a prompt: {shown(prompt)}. "
                f"{advice_on_prompt(prompt) or self._prompts()}"
            )
        if not isinstance(found, InputAdapter):
            raise PluginError(
                f"apportion_adapt_input returned {shown(found)} for this {type(prompt).__name__}; it must return an "
                "adapter with `features` and `render`, or None for a prompt that is not the plugin's."
            )
        names = [feature.name for feature in found.features]
        if not names:
            raise InputError(f"This {type(prompt).__name__} has no features; a prompt needs at least one.")
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise PluginError(f"The adapter {type(found).__name__} gave {times} features the name {name!r}.")
        for segment in getattr(found, "segments", ()):
            if segment.feature is not None and not 0 <= segment.feature < len(names):
                raise PluginError(
                    f"The adapter {type(found).__name__} has a segment of feature {segment.feature}, but it has "
                    f"{counted(len(names), 'feature')}, numbered from 0."
                )
        return found

    def _prompts(self) -> str:
        """A sentence on what may be a prompt."""
        own = ("text", "template", "chat", "documents")
        others = [name for name in self._plugins["inputs"].names() if name not in own]
        plugins = f", or an input of a plugin: {listing(others)}" if others else ""
        return f"Pass a str, ap.Text, ap.Template, ap.Chat or ap.Documents{plugins}."

    def _method(self, method: str | Method) -> tuple[str, Method]:
        if isinstance(method, str):
            name, made = method, self._plugins["methods"].get(method).make()
        else:
            check_instance("method", method)
            if not callable(getattr(method, "run", None)):
                raise InputError(f"method={shown(method)} is neither a name nor an object with `run`.")
            name, made = name_of(method), method
        for fault in protocol_faults("methods", made):
            raise PluginError(f"The method {name!r} {fault}")
        missing = made.requires - self._session.capabilities
        if missing:
            raise CapabilityError(
                f"The method {name!r} needs {listing(sorted(c.value for c in missing))}, which the backend "
                f"{self._session.info.backend!r} does not provide for this model. It provides: "
                f"{listing(sorted(c.value for c in self._session.capabilities))}."
                + self._remedy(made.requires, missing)
            )
        return name, made

    def _remedy(self, required: frozenset[Capability], missing: frozenset[Capability]) -> str:
        """A sentence on another backend, or another setting of this one; empty if neither would help."""
        infos = {entry.name: entry.make().info for entry in self._plugins["backends"]}
        own = infos.pop(self._session.info.backend, None)
        if own is not None and required <= own.capabilities:
            return ATTENDING if Capability.ATTENTIONS in missing else ""
        able = [name for name, info in infos.items() if required <= info.capabilities]
        return f" Use backend={' or '.join(map(repr, able))}, if it opens the model." if able else ""

    def chosen(
        self,
        method: str | Method,
        renderer: PromptRenderer,
        n_features: int,
        budget: int | None,
        given: Mapping[str, Any],
        drilled: int = 0,
    ) -> dict[str, Any]:
        """The fields of a request that define the method, its options and its budget of coalitions."""
        choice = choose_method(n_features, budget, renderer.draws, drilled) if method == "auto" else None
        name, made = self._method(choice.method if choice else method)
        options = dict(given) if choice is None else _with_choice(choice, given)
        limit = choice.budget if choice else budget
        return {
            "method_name": name,
            "method": made,
            "method_reason": choice.reason if choice else "",
            "method_notes": choice.notes if choice else (),
            "options": self._options(f"method {name!r}{', chosen by auto,' if choice else ''}", made, options),
            "all_options": {option: p.default for option, p in named_options(made.run).items()} | options,
            "budget": limit,
            "coalition_budget": None if limit is None else max(1, limit // renderer.draws),
        }

    def functions(
        self, target_fn: object, options: Mapping[str, Any] | None, step_scores: object, contrast: object
    ) -> tuple[str, TargetFunction, StepFunctions | None]:
        """The explained target function with its name, and those of the step scores, all fit for the contrast."""
        functions = self._plugins["targets"]
        name, made = made_target_function(functions, target_fn, {} if options is None else options)
        check_scores(self._session, name, made)
        steps = None if step_scores is None else step_functions(step_scores, functions, self._session)
        check_contrast(functions, {name: made, **(steps.by_function if steps else {})}, contrast)
        return name, made, steps

    def _full_prompt(self, prompt: object, renderer: Renderer, *, generated: bool) -> FullPrompt:
        """The prompt with all features, checked; the renderer gets notes about it."""
        full = renderer.full_prompt()
        self.targets.check_prompt(full.input)
        renderer.note(chat_hint(prompt, full, generated=generated))
        if full.text is not None:
            renderer.note(note_on_unknown(self._session.tokenizer, "prompt", full.text.text, full.input.ids))
        return full

    def _target(self, given: str | tuple[int, ...], full: FullPrompt, *, as_text: bool) -> Target:
        """A target that the user gave: tokens that continue the prompt, or a text to compare texts with."""
        if not as_text:
            return self.targets.given("target", given, full)
        text = given if isinstance(given, str) else self.targets.of_ids(given).text
        return self.targets.of_text(text, generated=False)

    def _rehearse(self, parts: Mapping[str, Any], seed: int) -> None:
        """Refuse what the method refuses before it asks anything, before the model has to write a target."""
        with failures_of_plugin(f"The method {parts['method_name']!r}"):
            features = len(parts["adapter"].features)
            modules = self._session.modules if isinstance(self._session, InsideSession) else None
            rehearse(parts["method"], features, parts["coalition_budget"], seed, parts["options"], modules)

    def _options(self, owner: str, method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
        if options:
            check_arguments(options, ARGUMENTS, named_options(method.run))
        check_options(owner, method.run, options)
        return with_sampler(method.run, options, self._plugins["samplers"])


ARGUMENTS = tuple(name for name, p in inspect.signature(Resolver.draft).parameters.items() if p.kind is p.KEYWORD_ONLY)
"""Arguments of ``attribute``."""


def limits(budget: int | None, until: float | None, max_std_error: float | None) -> tuple[int | None, float | None]:
    """Check the budget and ``until`` or its alias; with ``until``, the budget gets a default."""
    budget = None if budget is None else whole_number("budget", budget, least=1)
    if until is not None and max_std_error is not None:
        raise InputError("max_std_error= is an alias of until=; give only one of them.")
    name, limit = ("until", until) if max_std_error is None else ("max_std_error", max_std_error)
    if limit is None:
        return budget, None
    number = isinstance(limit, int | float | np.integer | np.floating) and not isinstance(limit, bool)
    if not number or not 0 < limit < sys.float_info.max:
        raise InputError(f"{name}={shown(limit)} must be a standard error, a number above 0 such as 0.05.")
    return UNTIL_BUDGET if budget is None else budget, float(limit)


def _with_choice(choice: Choice, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that belong to a choice of ``"auto"``, and those that the user gave."""
    for option in choice.options:
        if option in given:
            raise InputError(
                f"method='auto' takes {choice.method!r} here and sets its option {option!r}; "
                f"write method={choice.method!r} to set it yourself."
            )
    return dict(choice.options) | dict(given)


def with_sampler(function: Callable[..., Any], options: Mapping[str, Any], samplers: Registry) -> dict[str, Any]:
    """Replace the name of a sampler in the option ``sampler``, given or default, by the sampler itself.

    Raises:
        UnknownNameError: no sampler has this name.
        InputError: the value is neither a name nor a sampler.
    """
    default = named_options(function).get("sampler")
    given = options.get("sampler", default.default if default else None)
    check_instance("sampler", given)
    if default is not None and not isinstance(given, str) and not callable(getattr(given, "sample", None)):
        raise InputError(
            f"sampler={shown(given)} must be a name ({listing(samplers.names())}) or an object with `sample`."
        )
    return dict(options) | ({"sampler": samplers.get(given).make()} if isinstance(given, str) else {})

"""Context reliance after PECoRe: which output tokens depend on the context, and what in it each of them relies on.

Sarti, Chrupała, Nissim and Bisazza, "Quantifying the Plausibility of Context Reliance in Neural Machine Translation",
ICLR 2024, arXiv 2310.01188; defaults are those of ``inseq attribute-context``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, listing, shown
from apportion.game.game import Game
from apportion.game.method_runner import run_method
from apportion.options import named_options, whole_number
from apportion.protocols.backend import Session
from apportion.protocols.methods import Estimate
from apportion.protocols.request import Request
from apportion.protocols.targets import EMPTY, Target, TargetFunction
from apportion.rendering.token_texts import token_texts
from apportion.results.context_reliance import ContextReliance
from apportion.results.outliers import outliers
from apportion.runs.cue_function import CueFunction
from apportion.runs.run import Run
from apportion.runs.stages import Stages
from apportion.runs.step_scores import recorded_steps
from apportion.runs.target_functions import check_logits, made_target_function

if TYPE_CHECKING:
    from apportion.hooks.manager import Plugins
    from apportion.hooks.registry import Registry
    from apportion.results.attribution import Attribution

__all__ = ["METHODS", "Criteria", "context_reliance", "default_method"]

METHODS = ("saliency", "auto")
"""The default method is the first of these that this version has and the model allows; Inseq's is saliency."""

REFERENCE = "reference"
"""Option of the metrics: the prompt to compare with."""

FIXED = {
    "contrast": "each token is compared with what the model says without the context",
    "step_scores": "the metric is the step score",
}
"""Arguments of ``attribute`` that have no place here."""


@dataclass(frozen=True, slots=True)
class Criteria:
    """Thresholds: numbers of standard deviations above the mean, and numbers of the largest; ``None`` for none.

    Attributes:
        deviations: for tokens.
        most_tokens: for tokens.
        cue_deviations: for the cues of each token.
        most_cues: for the cues of each token.

    Raises:
        InputError: a threshold is not a finite number, or a limit is not a whole number of at least 1.
    """

    deviations: float | None
    most_tokens: int | None
    cue_deviations: float | None
    most_cues: int | None

    def __post_init__(self) -> None:
        for name, argument in (("deviations", "threshold"), ("cue_deviations", "cue_threshold")):
            value: object = getattr(self, name)
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if value is not None and not (number and np.isfinite(value)):  # type: ignore[call-overload]
                raise InputError(
                    f"{argument}={shown(value)} must be a number of standard deviations above the mean, such as 1.0, "
                    "or None for no threshold."
                )
        for name, argument in (("most_tokens", "top_tokens"), ("most_cues", "top_cues")):
            if getattr(self, name) is not None:
                whole_number(argument, getattr(self, name), least=1)


def context_reliance(
    stages: Stages,
    run: Run,
    plugins: Plugins,
    session: Session,
    arguments: Mapping[str, Any],
    *,
    metric: object,
    metric_options: Mapping[str, Any],
    contextless: str | None,
    criteria: Criteria,
) -> ContextReliance:
    """Find the context-sensitive tokens of the output, and attribute them to the context.

    The first step reads the output twice, with the context and without. The second is a single run of the method, in
    which every sensitive token has a column of its own.

    Args:
        stages: stages of the explainer.
        run: the run.
        plugins: registries in which names are looked up.
        session: the session.
        arguments: arguments of ``attribute``; the features of its prompt are the context.
        metric: name of a target function with a reference prompt, or such a function.
        metric_options: its options.
        contextless: text of the prompt without the context; ``None`` for the prompt without any features.
        criteria: thresholds.

    Raises:
        InputError: an argument is invalid, or the context changes nothing about the prompt.
        CapabilityError: the backend lacks logits, or what the method needs.
    """
    for name, why in FIXED.items():
        if arguments.get(name) is not None:
            raise InputError(f"{name}= has no place in context_reliance: {why}.")
    targets = plugins["targets"]
    options = arguments.get("target_options") or {}
    cues = CueFunction(*made_target_function(targets, arguments["target_fn"], options))
    check_logits(session, cues.name, cues)
    name, measure = _metric(targets, metric, metric_options, EMPTY if contextless is None else contextless)
    taken = {**arguments, "target_fn": cues, "target_options": None, "step_scores": {name: measure}}
    draft = stages.resolve(run, taken)
    request = replace(_named(stages.generate(run, draft), name, metric_options), target_options=dict(options))
    without = request.step_scores[0].reference
    assert without is not None
    if without == request.renderer.full():
        raise InputError("The prompt reads the same with its context and without; check the context and contextless=.")
    stages.begin(run)
    run.request = request
    readings = stages.readings(run, batches := stages.batches())
    logits = [readings.logits(prompt, request.target)[0] for prompt in (request.renderer.full(), without)]
    run.steps = recorded_steps(request, readings)
    sensitive = outliers(np.nan_to_num(run.steps.values[name]), criteria.deviations, criteria.most_tokens)
    alternatives = _said(session, without.ids, request.target, logits[1])
    function = cues.at(torch.from_numpy(sensitive), alternatives, logits[1][None])
    run.request = request = replace(request, target_fn=function)
    game = stages.game(run, batches)
    estimate = run_method(request, game) if sensitive.any() else _nothing(game)
    stages.compare_spellings(run, game, batches)
    attribution: Attribution = stages.finish(run, estimate, game)
    return ContextReliance(
        attribution,
        name,
        sensitive,
        alternatives.tokens,
        _probabilities(logits[0], request.target),
        _probabilities(logits[1], request.target),
        deviations=criteria.deviations,
        most_tokens=criteria.most_tokens,
        cue_deviations=criteria.cue_deviations,
        most_cues=criteria.most_cues,
        plugins=plugins,
    )


def default_method(plugins: Plugins, session: Session) -> str:
    """The first of ``METHODS`` that is installed and that the session allows."""
    methods = plugins["methods"]
    able = (name for name in METHODS if name in methods and methods.get(name).make().requires <= session.capabilities)
    return next(able, METHODS[-1])


def _metric(targets: Registry, given: object, options: Mapping[str, Any], reference: str) -> tuple[str, TargetFunction]:
    """The metric, which compares with the prompt without the context.

    Raises:
        InputError: it compares with no other prompt, or has a reference prompt of its own.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"metric_options={shown(options)} must be a dict, such as {{'top_k': 20}}.")
    if isinstance(given, str):
        if REFERENCE not in named_options(targets.get(given).load()):
            able = [entry.name for entry in targets if REFERENCE in named_options(entry.load())]
            raise InputError(
                f"metric={given!r} does not compare two prompts. Metrics that do: {listing(able)}; or a target "
                "function of your own with a reference prompt."
            )
        if REFERENCE in options:
            raise InputError("The metric compares with the prompt without the context; name that with contextless=.")
        options = {**options, REFERENCE: reference}
    name, made = made_target_function(targets, given, options, name="metric", options_name="metric_options")
    if getattr(made, REFERENCE, None) is None:
        raise InputError(f"metric={name!r} has no reference prompt, so it cannot compare two prompts.")
    return name, made


def _named(request: Request, name: str, options: Mapping[str, Any]) -> Request:
    """The request whose step score has the name and the options of the metric."""
    (step,) = request.step_scores
    return replace(request, step_scores=(replace(step, target_fn_name=name, options=dict(options)),))


def _said(session: Session, prompt: tuple[int, ...], target: Target, logits: Float[Tensor, "T V"]) -> Target:
    """The most likely token in each place of the target, after the target's own tokens before it."""
    ids = tuple(logits.argmax(-1).tolist())
    before = prompt if session.layout.joint else ()
    texts = [
        token_texts(session.tokenizer, (*before, *target.ids[:i], one), len(before) + i)[0] for i, one in enumerate(ids)
    ]
    return Target(ids, tuple(texts), "".join(texts))


def _probabilities(logits: Float[Tensor, "T V"], target: Target) -> np.ndarray:
    """Probability of each target token."""
    found = logits.double().softmax(-1).gather(1, torch.tensor(target.ids, device=logits.device)[:, None])[:, 0]
    array: np.ndarray = found.cpu().numpy()
    array.setflags(write=False)
    return array


def _nothing(game: Game) -> Estimate:
    """The attributions if no token depends on the context: what would be attributed is 0, whatever the context."""
    zeros = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
    return Estimate(zeros, notes=("no output token depends on the context, so no run of the method was needed",))

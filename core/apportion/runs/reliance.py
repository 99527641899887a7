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

from apportion.errors import CapabilityError, InputError, listing, shown
from apportion.game.game import Game
from apportion.game.method_runner import run_method
from apportion.options import named_options, whole_number
from apportion.protocols.backend import WHITE_BOX, Session
from apportion.protocols.inside import EmbeddedBatch, InsideSession
from apportion.protocols.methods import Estimate
from apportion.protocols.request import Request
from apportion.protocols.targets import EMPTY, Needs, Target, TargetFunction
from apportion.rendering.token_texts import token_texts
from apportion.results.context_reliance import ContextReliance
from apportion.results.finding import finding
from apportion.results.outliers import outliers
from apportion.runs.context_prompt import ContextOf
from apportion.runs.cue_function import CueFunction
from apportion.runs.run import Run
from apportion.runs.stages import Stages
from apportion.runs.step_record import StepRecord
from apportion.runs.step_scores import recorded_steps
from apportion.runs.target_functions import check_scores, made_target_function

if TYPE_CHECKING:
    from apportion.hooks.manager import Plugins
    from apportion.hooks.registry import Registry
    from apportion.runs.resolver import Draft

__all__ = ["METHODS", "ContextQuestion", "Criteria", "context_reliance"]

METHODS = ("saliency", "auto")
"""The default method is the first of these that this version has and the model allows; Inseq's is saliency."""

TARGET_FN = "contrast_prob_diff"

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


@dataclass(frozen=True, slots=True)
class ContextQuestion:
    """The arguments of one call of ``context_reliance``.

    Attributes:
        where: the prompt and its context.
        metric: name of a target function with a reference prompt, or such a function.
        metric_options: its options.
        criteria: thresholds.
        arguments: other arguments of ``attribute``.
    """

    where: ContextOf
    metric: object
    metric_options: Mapping[str, Any]
    criteria: Criteria
    arguments: Mapping[str, Any]


def context_reliance(
    stages: Stages, run: Run, plugins: Plugins, session: Session, question: ContextQuestion
) -> ContextReliance:
    """Find the context-sensitive tokens of the output, and attribute them to the context.

    The first step reads the output twice, with the context and without. The second is a single run of the method, in
    which every sensitive token has a column of its own.

    Args:
        stages: stages of the explainer.
        run: the run.
        plugins: registries in which names are looked up.
        session: the session.
        question: what is asked.

    Raises:
        InputError: an argument is invalid, or the context changes nothing about the prompt.
        CapabilityError: the backend lacks logits, or what the method needs.
    """
    run.request = request = _resolved(stages, run, plugins, session, question)
    step, criteria = request.step_scores[0], question.criteria
    assert step.reference is not None and isinstance(request.target_fn, CueFunction)
    stages.begin(run)
    readings = stages.readings(run, batches := stages.batches())
    logits = [readings.logits(prompt, request.target)[0] for prompt in (request.renderer.full(), step.reference)]
    run.steps = recorded_steps(request, readings)
    sensitive = outliers(np.nan_to_num(run.steps.values[step.name]), criteria.deviations, criteria.most_tokens)
    alternatives = _said(session, step.reference.ids, request.target, logits[1])
    cues = request.target_fn.at(torch.from_numpy(sensitive), alternatives, logits[1][None])
    run.request = request = replace(request, target_fn=cues)
    game = stages.game(run, batches)
    estimate = run_method(request, game) if sensitive.any() else _nothing(game, run.steps, step.name, criteria)
    stages.compare_spellings(run, game, batches)
    return ContextReliance(
        stages.finish(run, estimate, game),
        step.name,
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


def _resolved(stages: Stages, run: Run, plugins: Plugins, session: Session, question: ContextQuestion) -> Request:
    """The request of a call: its target function finds cues, and its one step score is the metric.

    Raises:
        InputError: an argument is invalid, or the context changes nothing about the prompt.
        CapabilityError: the backend lacks logits, or what the method needs.
    """
    given, targets = question.arguments, plugins["targets"]
    for name, why in FIXED.items():
        if given.get(name) is not None:
            raise InputError(f"{name}= has no place in context_reliance: {why}.")
    options = given.get("target_options") or {}
    named, function = made_target_function(targets, given.get("target_fn", TARGET_FN), options)
    if function.needs is Needs.TEXT:
        raise InputError(f"The target function {named!r} reads whole texts, and cues are found for tokens.")
    cues = CueFunction(named, function)
    check_scores(session, cues.name, cues)
    without = question.where.without()
    name, metric = _metric(targets, question.metric, question.metric_options, EMPTY if without is None else without)
    method = given.get("method")
    arguments = {
        **given,
        **question.where.arguments(stages.resolver, session),
        "method": default_method(plugins, session) if method is None else method,
        "target_fn": cues,
        "target_options": None,
        "step_scores": {name: metric},
    }
    draft = stages.resolve(run, arguments)
    if method is None and arguments["method"] != METHODS[-1] and not _reads_embeddings(session, draft):
        draft = stages.resolve(run, {**arguments, "method": METHODS[-1]})
    (step,) = draft.parts["step_scores"]
    if step.reference == draft.prompt.input:
        raise InputError("The prompt reads the same with its context and without; check the context and contextless=.")
    request = stages.generate(run, draft)
    step = replace(step, target_fn_name=name, options=dict(question.metric_options))
    return replace(request, step_scores=(step,), target_options=dict(options))


def _reads_embeddings(session: Session, draft: Draft) -> bool:
    """False if the session refuses to read this prompt by its embeddings, as gradient methods do."""
    if not WHITE_BOX & draft.parts["method"].requires or not isinstance(session, InsideSession):
        return True
    ids = draft.prompt.input.ids
    target = ids[:1] if draft.target is None else draft.target.ids
    try:
        with torch.no_grad(), session.forward(EmbeddedBatch(session.embeddings(ids[:1])[None], target, ids=ids)):
            return True
    except CapabilityError:
        return False


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


def _nothing(game: Game, steps: StepRecord, name: str, criteria: Criteria) -> Estimate:
    """The attributions if no token stands out: what would be attributed is 0, whatever the context."""
    zeros = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
    scores = steps.values[name]
    found = finding(scores, np.zeros(len(scores), dtype=bool), criteria.deviations, name, steps.about[name]["unit"])
    lower = "; a lower threshold= marks more" if np.nan_to_num(scores).any() else ""
    return Estimate(zeros, notes=(f"{found[0].lower()}{found[1:]}{lower}. Nothing was attributed",))

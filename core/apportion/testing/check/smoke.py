"""Smoke tests of registered extensions on tiny inputs, which show whether they run at all.

They are fast and do not need pytest. The contracts in ``apportion.testing`` check whether an extension is *correct*.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from apportion.errors import BudgetError, CapabilityError, InputError, PluginError, counted
from apportion.game.game import Game
from apportion.game.method_runner import check_estimate
from apportion.hooks.manager import Plugins
from apportion.hooks.registry import Entry
from apportion.models.processor import open_processor
from apportion.models.shapes import shapes_model_path
from apportion.protocols.backend import WHITE_BOX, Backend, Capability, Unavailable
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.inputs import InputAdapter
from apportion.protocols.methods import Coalitions, Method, Sampler, beyond_values
from apportion.protocols.metrics import Measurement, Metric
from apportion.protocols.pictures import Fill, Region, Segmenter
from apportion.protocols.targets import TargetFunction
from apportion.rendering.context import AdaptContext
from apportion.runs.resolver import with_sampler
from apportion.testing import reference, tiny
from apportion.testing.explainers import tiny_explainer
from apportion.testing.games import random_moebius
from apportion.testing.pictures import absent_pixels, sample_pictures
from apportion.testing.results import sample_results, with_a_picture
from apportion.testing.scores import random_scores, random_target, reads_texts

__all__ = ["smoke"]

TEXT = "The first line is short.\nThe second one is longer, and a third follows:\nx = 1"
FEATURES = 5
BUDGET = 20
"""Less than all 2^5 coalitions, so that an exceeded budget is detected."""


def smoke(entry: Entry, plugins: Plugins) -> str:
    """Try out one registered name.

    Args:
        entry: a registered entry that can be made.
        plugins: plugins that adapt inputs.

    Returns:
        A phrase that describes the trial, for people.

    Raises:
        PluginError: it does not work; the message continues a sentence that begins with its name.
    """
    made = entry.load() if entry.kind == "inputs" else entry.make()
    try:
        # Its output must not mix with the report on stdout.
        with contextlib.redirect_stdout(sys.stderr):
            return _TRIALS[entry.kind](made, plugins)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"fails when it is tried: {type(error).__name__}: {error}") from error


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _game() -> Game:
    return Game.from_function(random_moebius(FEATURES, 2), FEATURES)


def _method(made: Method, plugins: Plugins) -> str:
    if made.requires & WHITE_BOX:
        return _white_box(made)
    if beyond_values(made):
        return "not run: it needs more than values of coalitions"
    options = with_sampler(made.run, {}, plugins["samplers"])
    try:
        game = _game()
        estimate = made.run(game, budget=BUDGET, rng=_rng(), **options)
        if game.evaluations > BUDGET:
            raise PluginError(f"evaluated {game.evaluations} distinct coalitions with a budget of {BUDGET}.")
    except BudgetError:
        game = _game()
        estimate = made.run(game, budget=None, rng=_rng(), **options)
    check_estimate(type(made).__name__, estimate, FEATURES, 1)
    return f"run on a game of {counted(FEATURES, 'feature')}, {counted(game.evaluations, 'evaluation')}"


def _white_box(made: Method) -> str:
    with tiny_explainer(backend="torch") as explainer:  # not one of another plugin that may fail
        result = explainer.attribute("one two three", " four", method=made)
    return f"run on a tiny model, {counted(result.provenance.evaluations, 'evaluation')}"


def _sampler(made: Sampler, plugins: Plugins) -> str:
    drawn = made.sample(FEATURES, BUDGET, _rng())
    if not isinstance(drawn, Coalitions) or tuple(drawn.mask.shape) != (len(drawn.weight), FEATURES):
        raise PluginError(f"returned {drawn!r:.80} instead of Coalitions of {FEATURES} features.")
    return f"drew {counted(len(drawn.mask), 'coalition')} of {FEATURES} features"


def _target(made: TargetFunction, plugins: Plugins) -> str:
    if lacking := getattr(made, "lacking", ""):
        return f"not tried: it {lacking}"
    target = random_target(3)
    scores, _ = random_scores(made, 2, target)
    values, wanted = made(scores, target), (2, 1 if reads_texts(made) else 4)
    if tuple(values.shape) != wanted:
        raise PluginError(
            f"returned values of shape {tuple(values.shape)} for 2 inputs and 3 target tokens, not {wanted}."
        )
    return "applied to 2 texts" if reads_texts(made) else "applied to 2 inputs of 3 target tokens"


def _visualizer(made: Any, plugins: Plugins) -> str:
    result = sample_results()["sampled"]
    try:
        view = made.render(result)
    except InputError:  # of a view of pictures
        view = made.render(with_a_picture(result))
    if view is None:
        raise PluginError("returned None; a visualizer must return a figure, string or renderable.")
    return f"rendered its view, of the type {type(view).__name__}"


def _backend(made: Backend, plugins: Plugins) -> str:
    state = made.availability()
    if isinstance(state, Unavailable):
        return f"not run: unavailable here ({state.reason})"
    spec = tiny.spec("llama", torch.float32)
    if not made.claims(spec):
        return "not run: it does not claim models of transformers; BackendContract checks it with a model of its own"
    session = made.load(spec, device=None, dtype=None, memory_budget=None)
    try:
        found = session.log_probs(ScoringBatch.of([(1, 2, 3, 4), (5, 6, 7, 8)], (9, 10)))
        expected = reference.log_probs(tiny.model("llama", torch.float32), (1, 2, 3, 4), (9, 10))
        worst = float((found[0].double() - expected).abs().max())
    finally:
        session.close()
    if not worst < 1e-2:
        raise PluginError(f"scores a tiny model {worst:.3g} nats off the model's own forward pass.")
    can = ", ".join(sorted(c.value for c in session.capabilities - {Capability.LOG_PROBS}))
    return f"scored a tiny model on {session.info.device}; also {can or 'nothing else'}"


def _input(made: Any, plugins: Plugins) -> str:
    example: Callable[[], object] | None = getattr(made, "example", None)
    try:
        prompt = example() if callable(example) else made(TEXT)
    except (TypeError, InputError) as error:
        if callable(example):
            raise
        why = (
            "it rejects the text that it was tried with"
            if isinstance(error, InputError)
            else "it needs more than a text"
        )
        return f"not tried: {why} ({error}); give it a classmethod `example`"
    adapter = _adapted(prompt, plugins)
    if adapter is None:
        raise PluginError("is not adapted by any plugin: every apportion_adapt_input returned None for it.")
    rows = adapter.render(torch.ones(2, len(adapter.features), dtype=torch.bool))
    if len(rows) != 2:
        raise PluginError(f"rendered {len(rows)} inputs for 2 coalitions.")
    return f"adapted an example with {counted(len(adapter.features), 'feature')}"


def _adapted(prompt: object, plugins: Plugins) -> InputAdapter | None:
    """The adapter of a prompt, with the processor of a model that reads pictures if it needs one."""
    plain = AdaptContext(tiny.tokenizer(), make=plugins.make)
    found: InputAdapter | None
    try:
        found = plugins.hook.apportion_adapt_input(prompt=prompt, context=plain)
    except CapabilityError:
        processor = _processor()
        context = AdaptContext(processor.tokenizer, processor=processor, make=plugins.make)
        found = plugins.hook.apportion_adapt_input(prompt=prompt, context=context)
    return found


@functools.cache
def _processor() -> Any:
    """The processor of the small model that comes with apportion."""
    return open_processor(str(shapes_model_path()), {})


def _metric(made: Metric, plugins: Plugins) -> str:
    game = _game()
    found = made.measure(game, random_moebius(FEATURES, 2).shapley, rng=_rng())
    if not isinstance(found, Measurement):
        raise PluginError(f"returned {found!r:.80}, not a Measurement.")
    return f"measured {found.value:.3g} on a game, {counted(game.evaluations, 'evaluation')}"


def _segmenter(made: Segmenter, plugins: Plugins) -> str:
    pixels = sample_pictures()["wide"]
    try:
        found = list(made.segment(pixels, _processor()))
    except InputError as error:
        return _not_run(error)
    wrong = [one for one in found if not isinstance(one, Region) or np.shape(one.mask) != pixels.shape[:2]]
    if wrong or not found:
        what = f"{wrong[0]!r:.80}" if wrong else "no region"
        raise PluginError(f"returned {what} instead of Regions of {pixels.shape[0]} × {pixels.shape[1]} pixels.")
    return f"divided a picture into {counted(len(found), 'region')}"


def _fill(made: Fill, plugins: Plugins) -> str:
    pixels = sample_pictures()["wide"]
    absent = absent_pixels(*pixels.shape[:2])["all pixels" if made.once else "a rectangle"]
    try:
        found = made.fill(pixels, absent, 0)
    except InputError as error:
        return _not_run(error)
    if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.shape != pixels.shape:
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise PluginError(f"returned {what} instead of a picture of uint8 {pixels.shape}.")
    return f"filled {counted(int(absent.sum()), 'pixel')}"


def _not_run(error: InputError) -> str:
    """A phrase for an extension that needs a package which is missing; any other error is raised again."""
    if isinstance(error.__cause__, ImportError):
        return f"not run: {error}"
    raise error


_TRIALS: Mapping[str, Callable[[Any, Plugins], str]] = {
    "methods": _method,
    "samplers": _sampler,
    "targets": _target,
    "visualizers": _visualizer,
    "backends": _backend,
    "inputs": _input,
    "metrics": _metric,
    "segmenters": _segmenter,
    "fills": _fill,
}

"""Step scores: target functions that are recorded for each target token of the full prompt, beside the attributions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from apportion.errors import counted
from apportion.game.game import Memory
from apportion.options import unit_of
from apportion.protocols.request import Request, StepFunction
from apportion.protocols.row import ModelInput, Row
from apportion.protocols.targets import Needs, Target
from apportion.runs.assemble import plain_options
from apportion.runs.readings import Readings
from apportion.runs.step_record import StepRecord
from apportion.runs.target_functions import compares_with_contrast

__all__ = ["recorded_steps", "remember_full_prompt", "rows_to_read"]


def recorded_steps(request: Request, readings: Readings) -> StepRecord:
    """Record the step scores of a request.

    One forward pass over the full prompt serves all functions of logits, and gives the log-probabilities that others
    need. Without functions of logits, log-probabilities are read as those of any coalition. A reference prompt or a
    contrast is read once, however many functions compare with it.

    Args:
        request: the request, with its target.
        readings: reads prompts, and counts them.
    """
    full = request.renderer.full()
    for one in request.step_scores:
        if one.target_fn.needs is Needs.LOGITS:
            for prompt, target in _places(request, one, full):
                readings.logits(prompt, target)
    wanted: dict[Target, list[ModelInput]] = {}
    for one in request.step_scores:
        if one.target_fn.needs is Needs.LOG_PROBS:
            for prompt, target in _places(request, one, full):
                wanted.setdefault(target, []).append(prompt)
    for target, prompts in wanted.items():
        readings.read_log_probs(prompts, target)
    values = {one.name: _finite(one, request, readings, full) for one in request.step_scores}
    return StepRecord(values, {one.name: _about(one, request) for one in request.step_scores}, readings.tally)


def remember_full_prompt(request: Request, readings: Readings, memory: Memory) -> bool:
    """Let the game know the value of the full prompt, if its log-probabilities were read for step scores.

    The run would read them again; so this evaluation is one of the run, not of its step scores.

    Args:
        request: the request.
        readings: what was read.
        memory: memory of the run's game.

    Returns:
        True if the game knows it now.
    """
    full, target = request.renderer.full(), request.target
    if request.target_fn.needs is not Needs.LOG_PROBS or request.reference is not None:
        return False
    read = [one for one in (target, target.contrast) if one is not None]
    if full in memory.scored or not all(readings.read_apart(full, one) for one in read):
        return False
    value = readings.values(request.target_fn, full, target, None)
    if not bool(torch.isfinite(value).all()):  # the game will say which coalition it is
        return False
    memory.scored[full] = value
    return True


def rows_to_read(request: Request) -> tuple[list[Row], int]:
    """The rows that step scores need beyond those of the run, for estimates, and the number of their prompts."""
    full = request.renderer.full()
    places = dict.fromkeys(place for one in request.step_scores for place in _places(request, one, full))
    logits = any(one.target_fn.needs is Needs.LOGITS for one in request.step_scores)
    shared = not logits and request.target_fn.needs is Needs.LOG_PROBS and request.reference is None
    own = [(p, t) for p, t in places if not (shared and p == full and t.ids == request.target.ids)]
    rows = [Row(prompt.ids, target.ids, prompt.media) for prompt, target in own]
    return rows, len({prompt for prompt, _ in own} - ({full} if shared else set()))


def _places(request: Request, one: StepFunction, full: ModelInput) -> Iterator[tuple[ModelInput, Target]]:
    """The prompts and targets that a function is computed from."""
    target = replace(request.target, contrast=None)
    yield full, target
    if compares_with_contrast(one.target_fn):
        assert request.step_contrast is not None
        yield full, request.step_contrast
    if one.reference is not None:
        yield one.reference, target


def _finite(one: StepFunction, request: Request, readings: Readings, full: ModelInput) -> Float64[np.ndarray, " T"]:
    """The values at each token; NaN, with a note, where they are not finite."""
    contrast = request.step_contrast if compares_with_contrast(one.target_fn) else None
    values = readings.values(one.target_fn, full, replace(request.target, contrast=contrast), one.reference)
    found = values[1:].detach().numpy().copy()
    odd = ~np.isfinite(found)
    if odd.any():
        where = counted(int(odd.sum()), "target token")
        readings.tally.notes.append(f"the step score {one.name!r} is not a finite number for {where}")
        found[odd] = np.nan
    found.setflags(write=False)
    return found


def _about(one: StepFunction, request: Request) -> dict[str, Any]:
    contrast = request.step_contrast if compares_with_contrast(one.target_fn) else None
    return {
        "target_fn": one.target_fn_name,
        "options": plain_options(one.options),
        "contrast": None if contrast is None else contrast.text,
        "unit": unit_of(one.target_fn, one.target_fn_name),
        "label": str(getattr(one.target_fn, "label", "")),
    }

"""Assembly of a result from a method's estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from apportion.options import name_of, unit_of
from apportion.phrases import sentence
from apportion.protocols.methods import Estimate
from apportion.results.attribution import Attribution
from apportion.results.provenance import Provenance
from apportion.results.ranking import top_agreement
from apportion.results.recipe import recipe_of

if TYPE_CHECKING:
    from apportion.game.game import Game
    from apportion.hooks.manager import Plugins
    from apportion.protocols.backend import SessionInfo
    from apportion.protocols.likeness import Likeness
    from apportion.protocols.request import Request
    from apportion.runs.step_record import StepRecord
    from apportion.scoring.scorer import Tally

__all__ = ["assemble", "plain_options"]


def assemble(
    request: Request,
    estimate: Estimate,
    *,
    game: Game,
    tally: Tally,
    steps: StepRecord,
    info: SessionInfo,
    likeness: Likeness | None,
    fingerprint: str,
    plugins: Plugins,
    notes: tuple[str, ...],
    versions: Mapping[str, str],
    seconds: float,
    extras: Mapping[str, Any],
) -> Attribution:
    """Combine values, names and provenance.

    Args:
        request: the run's request.
        estimate: the method's estimate, already checked.
        game: its memory has the scores of the empty and the full prompt, if the method evaluated them.
        tally: cost of the run, without its step scores.
        steps: step scores, with their own cost.
        info: the session that the run used.
        likeness: scores by which the model is known again, if nobody can hash it.
        fingerprint: fingerprint of the model.
        plugins: plugins for ``Attribution.plot``.
        notes: notes on the choice of the backend.
        versions: versions of packages.
        seconds: duration of the whole run in seconds.
        extras: further results beside those of the method.
    """
    values = _array(estimate.values)
    errors = None if estimate.std_error is None else _array(estimate.std_error)
    replicates = None if estimate.replicates is None else _array(estimate.replicates)
    full = _known(game, present=True)
    agreement = top_agreement(values[:, 0], None if errors is None else errors[:, 0], replicates)
    provenance = _provenance(request, estimate, game, tally, steps, info, likeness)
    provenance = replace(
        provenance,
        seconds=round(seconds, 3),
        fingerprint=fingerprint,
        versions=versions,
        notes=tuple(map(sentence, _notes(request, notes, info, tally, steps, estimate))),
    )
    return Attribution(
        features=request.adapter.features,
        target_tokens=request.target.tokens,
        target_text=request.target.text,
        values=values[:, 0],
        token_values=_of_tokens(values, len(request.target.tokens)),
        std_error=None if errors is None else errors[:, 0],
        token_std_error=None if errors is None else _of_tokens(errors, len(request.target.tokens)),
        top_agreement=None if agreement is None else _fixed(agreement),
        estimand=estimate.estimand or request.method.estimand,
        base_value=_known(game, present=False),
        full_value=estimate.full_value if full is None else full,
        segments=tuple(getattr(request.adapter, "segments", ())),
        pictures=tuple(getattr(request.adapter, "pictures", ())),
        provenance=provenance,
        extras={**estimate.extras, **extras},
        step_scores=steps.values,
        recipe=recipe_of(request, plugins["inputs"], (*tally.notes, *steps.tally.notes)),
        plugins=plugins,
        signed=estimate.signed,
    )


def _provenance(
    request: Request,
    estimate: Estimate,
    game: Game,
    tally: Tally,
    steps: StepRecord,
    info: SessionInfo,
    likeness: Likeness | None,
) -> Provenance:
    """The arguments of a run, its cost, and the session that it used."""
    score_unit = unit_of(request.target_fn, request.target_fn_name)
    return Provenance(
        method=request.method_name,
        method_reason=request.method_reason,
        options=plain_options(request.all_options),
        generation=dict(request.generation) if request.target.generated or request.samples else None,
        samples=request.samples,
        likeness={} if likeness is None else {"log_probs": [*likeness.log_probs], "tolerance": likeness.tolerance},
        target_fn=request.target_fn_name,
        target_label=str(getattr(request.target_fn, "label", "")),
        target_rise=str(getattr(request.target_fn, "rise", "")),
        target_options=plain_options(request.target_options),
        contrast=None if request.target.contrast is None else request.target.contrast.text,
        unit=estimate.unit or score_unit,
        score_unit=score_unit if estimate.unit not in (None, score_unit) else "",
        budget=request.budget,
        until=request.until,
        seed=request.seed,
        # Inputs that another run over the same memory had scored count too: this result needed them.
        evaluations=max(tally.evaluations, game.evaluations - tally.cached) + steps.tally.evaluations,
        cached=tally.cached + steps.tally.cached,
        forwarded_tokens=tally.forwarded_tokens + steps.tally.forwarded_tokens,
        encoded_media=tally.encoded_media + steps.tally.encoded_media,
        model=info.model,
        backend=info.backend,
        device=info.device,
        dtype=info.dtype,
        target_end=request.target.end,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        step_scores=steps.about,
        step_evaluations=steps.tally.evaluations + steps.tally.cached,
    )


def _notes(
    request: Request, notes: tuple[str, ...], info: SessionInfo, tally: Tally, steps: StepRecord, estimate: Estimate
) -> Iterator[str]:
    """Notes on the method, the model, the prompts, the target and the contrast, the run, and the estimate."""
    target, contrast = request.target, request.step_contrast
    yield from (*request.method_notes, *notes, *info.notes, *request.renderer.notes, *target.notes)
    yield from () if contrast is None else contrast.notes
    yield from (*tally.notes, *steps.tally.notes, *estimate.notes)


def _of_tokens(values: np.ndarray, tokens: int) -> np.ndarray:
    """The columns of the target's tokens, as rows; NaN if only the whole target has values."""
    found = values[:, 1:] if values.shape[1] > 1 else np.full((len(values), tokens), np.nan)
    return _fixed(found.T.copy())


def _array(tensor: torch.Tensor) -> np.ndarray:
    return _fixed(np.array(tensor.detach().to("cpu", torch.float64).numpy()))


def _fixed(array: np.ndarray) -> np.ndarray:
    """Make an array read-only, because observers and views share a result with the user."""
    array.setflags(write=False)
    return array


def _known(game: Game, *, present: bool) -> float | None:
    """The score with all features, or with none, if the method evaluated it."""
    value = game.known(torch.full((game.n_features,), present))
    return None if value is None else float(value[0])


def plain_options(options: Mapping[str, object]) -> dict[str, Any]:
    """Options for a file; objects, such as a sampler, become their name."""
    return {name: _plain(value) for name, value in options.items()}


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, range):
        return list(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if value is None or isinstance(value, str | int | float | Sequence | np.ndarray | torch.Tensor):
        return value
    return name_of(value)

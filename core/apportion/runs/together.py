"""Results that are evaluated together: they must be about one game, whose scores they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from apportion.errors import InputError, shown
from apportion.game.game import Memory
from apportion.protocols.backend import Session
from apportion.protocols.request import Request
from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.context_reliance import ContextReliance
from apportion.runs.run import Past
from apportion.scoring.text_source import Archive
from apportion.scoring.writer import is_sampled

__all__ = ["check_one_game", "checked_results", "share_scores"]


def checked_results(given: object) -> list[Attribution]:
    """The results of a list, of one target and the same features.

    Raises:
        InputError: there are none, some are something else, or they do not belong together.
    """
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    wrong = next((one for one in listed if not isinstance(one, Attribution)), None)
    if isinstance(wrong, ContextReliance):
        raise InputError("evaluate takes attributions, and this is a ContextReliance: evaluate its .attribution.")
    if wrong is not None:
        raise InputError(
            f"evaluate takes a result or a list of results; this is {type(wrong).__name__}: {shown(wrong)}."
        )
    results: Sequence[Attribution] = [one for one in listed if isinstance(one, Attribution)]
    return list(ResultComparison(results).results)


def check_one_game(pasts: Sequence[Past], session: Session) -> None:
    """Refuse results whose runs asked different questions, so that their metrics could not be compared.

    Args:
        pasts: the run of each result.
        session: the session, which may draw texts at random.

    Raises:
        InputError: the runs differ in the target, the target function, or in what the model reads without features.
    """
    first, *others = (past.request for past in pasts)
    drawn = first.samples and is_sampled(session, first.generation)
    for what, of in {**_ONE_GAME, **({"the seed of their texts": _seed} if drawn else {})}.items():
        expected = of(first)
        if any(of(other) != expected for other in others):
            raise InputError(
                f"These results differ in {what}, so their metrics cannot be compared. Evaluate each alone, or make "
                "them with the same arguments, but for method, budget and seed."
            )


def share_scores(pasts: Sequence[Past]) -> tuple[Memory, Archive, dict[str, float]]:
    """The scores of all runs of one game; and the texts that the model wrote in them, with their values."""
    shared, archive, values = Memory(), Archive(), dict[str, float]()
    for past in pasts:
        shared.rendered.update(past.memory.rendered)
        shared.scored.update(past.memory.scored)
        archive.add(past.archive)
        values |= past.text_values
    return shared, archive, values


def _seed(request: Request) -> object:
    return request.seed


def _without_features(request: Request) -> object:
    """Prompts without features, one for each draw of baselines."""
    (item,) = request.renderer(torch.zeros(1, len(request.adapter.features), dtype=torch.bool))
    return item


_ONE_GAME: Mapping[str, Callable[[Request], object]] = {
    "the tokens of their target": lambda request: request.target.ids,
    "the tokens of their contrast": lambda request: (
        None if request.target.contrast is None else request.target.contrast.ids
    ),
    "their target function": lambda request: request.given.get("target_fn", request.target_fn_name),
    "the options of their target function": lambda request: dict(request.target_options),
    "the tokens of their prompt": lambda request: request.renderer.full(),
    "what replaces absent features": lambda request: [feature.baseline for feature in request.adapter.features],
    "what is left without features (perhaps the baselines that the seed draws)": _without_features,
    "the number of texts after each prompt": lambda request: request.samples,
    "the options of their texts": lambda request: dict(request.generation) if request.samples else None,
}
"""What decides the value of every coalition."""

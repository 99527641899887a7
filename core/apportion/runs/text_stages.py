"""The stages that differ for runs whose target function reads texts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from apportion.game.game import Game
from apportion.protocols.backend import Session
from apportion.protocols.progress import ProgressEvent
from apportion.runs.run import Ask, Run, Writing
from apportion.runs.text_values import UNWRITTEN, check_target, needed_samples, text_of_target, writer_of
from apportion.scoring.noise import outputs_of
from apportion.scoring.text_scorer import TextScorer
from apportion.scoring.text_source import TextSource

if TYPE_CHECKING:
    from apportion.hooks.manager import Plugins
    from apportion.protocols.request import Request
    from apportion.runs.resolver import Draft
    from apportion.runs.target_text import Targets

__all__ = ["TextStages"]


class TextStages:
    """Stages of runs that read texts.

    Args:
        plugins: hooks.
        session: session of the open model.
        targets: makes targets for the session.
    """

    def __init__(self, plugins: Plugins, session: Session, targets: Targets) -> None:
        self._plugins = plugins
        self._session = session
        self._targets = targets

    def request(self, run: Run, draft: Draft) -> Request:
        """The request of a run that reads texts, with the text to compare with, and the number of texts it needs."""
        run.report(ProgressEvent("generate"))
        request = draft.request(draft.target or UNWRITTEN)
        source = self.source(run, request)
        target = draft.target
        if target is None:
            target = self._targets.of_text(text_of_target(source, draft.prompt.input), generated=True)
        check_target(request.target_fn, target)
        samples, note = needed_samples(source, draft.prompt.input, request.samples)
        request.renderer.note(note or None)
        return replace(request, target=target, samples=samples)

    def game(self, run: Run, ask: Ask | None, spent: frozenset[Hashable]) -> Game:
        """Make the game of a run that reads texts: its output is the whole target, with replicates of its noise."""
        request, scorer = run.resolved, self.scorer(run)
        return Game(
            [feature.name for feature in request.adapter.features],
            outputs_of(request.samples),
            request.renderer,
            scorer if ask is None else lambda inputs: ask(Writing(scorer, inputs)),
            budget=request.budget,
            levels=getattr(request.adapter, "levels", ()),
            memory=run.memory,
            spent=spent,
        )

    def source(self, run: Run, request: Request) -> TextSource:
        """Make the source of texts of a request; it updates the run's archive and counts."""
        return TextSource(
            writer_of(self._session, request.generation, request.seed),
            run.archive,
            lookup=partial(self._plugins.call, "apportion_lookup_texts", request=request),
            keep=partial(self._plugins.call, "apportion_text_written", request=request),
            report=run.report,
            tally=run.tally,
        )

    def scorer(self, run: Run) -> TextScorer:
        """Make the scorer of a run that reads texts."""
        request = run.resolved
        source = self.source(run, request)
        return TextScorer(source, request.target, request.target_fn, request.samples, run.text_values)

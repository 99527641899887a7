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
        """The request of a run that reads texts, with the text to compare with, and the number of texts it needs.

        The target function is tried on one text before the model writes all the others. A trial on a server that is
        paid for asks for nothing: it assumes that greedy texts are alike.

        Raises:
            InputError: the target function cannot compare with the target, or the model writes none.
        """
        run.report(ProgressEvent("generate"))
        request, full = draft.request(draft.target or UNWRITTEN), draft.prompt.input
        source = self.source(run, request)
        sampled = source.writer.sampled
        run.extra_texts = (draft.target is None) if sampled else request.samples - 1
        if draft.target is not None:
            check_target(request.target_fn, draft.target)
        if run.trial and self._session.layout.metered:
            return replace(request, samples=request.samples if sampled else 1)
        target = draft.target
        if target is None:
            target = self._targets.of_text(text_of_target(source, full), generated=True)
            check_target(request.target_fn, target)
        samples, note = needed_samples(source, full, request.samples)
        request.renderer.note(note or None)
        request = replace(draft.request(target), samples=samples)
        if not run.trial:
            self._scorer(run, request, source).find_values(source.uncounted(full, [0]))
        return request

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
        """Make the scorer of a run."""
        return self._scorer(run, run.resolved, self.source(run, run.resolved))

    def _scorer(self, run: Run, request: Request, source: TextSource) -> TextScorer:
        return TextScorer(source, request.target, request.target_fn, request.samples, run.text_values)

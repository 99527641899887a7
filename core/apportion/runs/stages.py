"""The stages that every run goes through, alone or beside others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.game.inside import inside_of, require_gradient
from apportion.game.token_view import Charge, TokenView, predictions, token_view
from apportion.protocols.backend import Capability, Session
from apportion.protocols.inside import Inside, InsideSession, Trace
from apportion.protocols.progress import ProgressEvent, Report
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Needs, TargetFunction
from apportion.results.provenance import versions
from apportion.runs.assemble import assemble
from apportion.runs.resolver import Resolver
from apportion.runs.run import Ask, Call, EmbeddedScoring, Past, PastRuns, Run, Scoring, Tracing, answered
from apportion.runs.target_text import Targets
from apportion.scoring.batches import Batches
from apportion.scoring.readout import Readout
from apportion.scoring.scorer import Scorer

if TYPE_CHECKING:
    from apportion.hooks.manager import Plugins
    from apportion.protocols.methods import Estimate
    from apportion.protocols.request import Request
    from apportion.results.attribution import Attribution

__all__ = ["Stages"]

WHITE_BOX = frozenset({Capability.GRADIENTS, Capability.HIDDEN_STATES, Capability.ATTENTIONS})


class Stages:
    """Resolving, generating, scoring and assembling, for the runs of one explainer.

    Args:
        plugins: hooks and registries.
        session: the open model.
        notes: on the choice of the backend, for results.
        share: whether what rows share may be read once.
        report: where progress goes.

    Attributes:
        past: runs that ended, for as long as their results live.
        resolver: looks names up.
    """

    def __init__(
        self, plugins: Plugins, session: Session, notes: tuple[str, ...], *, share: bool, report: Report
    ) -> None:
        self.report = report
        self.past = PastRuns()
        self._plugins = plugins
        self._session = session
        self._notes = notes
        self._share = share
        self._versions = versions()
        self._targets = Targets(session)
        self.resolver = Resolver(plugins, session, self._targets)

    @contextmanager
    def run(self) -> Iterator[Run]:
        """A run that is alone: however it ends, prefixes are forgotten and observers are told."""
        run = Run(self.report)
        try:
            yield run
        except BaseException as error:
            self.release()
            self.end(run, error)
            raise
        self.release()
        self.end(run, None)

    def resolve(self, run: Run, arguments: Mapping[str, Any]) -> Request:
        """The request of the arguments of ``attribute``: checked without the model, then with a target written by it.

        Raises:
            InputError: any mistake in the arguments.
            CapabilityError: the session cannot do what the method needs.
        """
        draft = self.resolver.draft(run.id, **arguments)
        target = draft.target
        if target is None:
            run.report(ProgressEvent("generate"))
            target = self._targets.written(draft.prompt, draft.generation, draft.seed)
        run.request = draft.request(target)
        return run.request

    def begin(self, run: Run) -> None:
        """Tell observers what is going to be run."""
        self._plugins.call("apportion_before_run", request=run.resolved)

    def batches(self) -> Batches:
        """Lays rows out; runs that take turns share it."""
        return Batches(self._session, share=self._share)

    def game(self, run: Run, batches: Batches, ask: Ask | None = None) -> Game:
        """What the method asks.

        Args:
            run: whose request, memory and account it is.
            batches: lays rows out.
            ask: takes every question to the session; ``None``: straight away.
        """
        request, session = run.resolved, self._session
        scorer, put = self.scorer(run, request, batches), ask or answered

        def score_tokens(prompts: Sequence[tuple[int, ...]], target_fn: TargetFunction) -> Float[Tensor, "N K"]:
            other = self.scorer(run, replace(request, target_fn=target_fn, reference=None), batches)
            values: Tensor = put(Scoring(other, [ModelInput(prompt) for prompt in prompts]))
            return values

        def predict(ids: tuple[int, ...], start: int | None) -> Float[Tensor, "P V"]:
            logits: Tensor = put(Call(partial(predictions, session, ids, start)))
            return logits

        def tokens(charge: Charge) -> TokenView:
            return token_view(request, session, score_tokens, predict, charge)

        return Game(
            [feature.name for feature in request.adapter.features],
            1 + len(request.target.ids),
            request.renderer,
            scorer if ask is None else lambda inputs: ask(Scoring(scorer, inputs)),
            budget=request.budget,
            levels=getattr(request.adapter, "levels", ()),
            tokens=tokens,
            inside=self._inside(request, scorer, put),
            memory=run.memory,
        )

    def finish(self, run: Run, estimate: Estimate, game: Game) -> Attribution:
        """The result, which observers see."""
        request, seconds = run.resolved, run.before + run.seconds
        attribution = assemble(
            request,
            estimate,
            game=game,
            tally=run.tally,
            session=self._session,
            plugins=self._plugins,
            notes=self._notes,
            versions=self._versions,
            seconds=seconds,
        )
        self.past.keep(attribution, Past(request, run.tally, run.memory, seconds))
        self._plugins.call("apportion_after_run", request=request, attribution=attribution)
        return attribution

    def end(self, run: Run, error: BaseException | None) -> None:
        """Tell observers how a run ended."""
        run.report(ProgressEvent("end", seconds=run.seconds, error=error))

    def release(self) -> None:
        """The session lets go of what it kept from one batch to the next."""
        self._session.release()

    def scorer(self, run: Run, request: Request, batches: Batches) -> Scorer:
        """Scores inputs for a request, on the account of a run."""
        readout = Readout(self._session, request.target, request.target_fn, request.reference, batches.turns)
        looks = request.target_fn.needs is Needs.LOG_PROBS
        return Scorer(
            self._session,
            readout,
            batches,
            score_batch=partial(self._plugins.call, "apportion_score", request=request),
            lookup=partial(self._plugins.call, "apportion_lookup", request=request) if looks else None,
            report=run.report,
            tally=run.tally,
        )

    def _inside(self, request: Request, scorer: Scorer, put: Ask) -> Any:
        """How the game gets at the model's inside; ``None`` where the session does not give it."""
        session = self._session
        if not isinstance(session, InsideSession) or not WHITE_BOX & session.capabilities:
            return None

        def values(embedded: Float[Tensor, "B P D"]) -> Float[Tensor, "B K"]:
            found: Tensor = put(EmbeddedScoring(session, scorer.readout, scorer, embedded))
            return found

        def trace(ids: tuple[int, ...], hidden: bool, attentions: bool, modules: tuple[str, ...]) -> Trace:
            found: Trace = put(Tracing(session, scorer, ids, hidden, attentions, modules))
            return found

        def inside(charge: Charge) -> Inside:
            if Capability.GRADIENTS in request.method.requires:
                require_gradient(scorer.readout, request.target_fn_name)
            return inside_of(
                request,
                session,
                charge=charge,
                embeddings=lambda ids: put(Call(partial(session.embeddings, ids))),
                values=values,
                trace=trace,
            )

        return inside

"""The stages of every run, single or concurrent."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, PluginError, ServerError, counted
from apportion.game.causal import require_causal
from apportion.game.game import Game, Memory
from apportion.game.inside import GameInside, is_stationary, require_gradient
from apportion.game.possible import possible_features
from apportion.game.token_view import Charge, TokenView, predictions, text_only, token_view
from apportion.protocols.backend import WHITE_BOX, Capability, Session
from apportion.protocols.inside import Inside, InsideSession
from apportion.protocols.progress import ProgressEvent, Report
from apportion.protocols.row import ModelInput
from apportion.protocols.targets import Needs, TargetFunction
from apportion.results.provenance import versions
from apportion.runs.again import check_same_model, may_be_mixed, recipe_in, request_again
from apportion.runs.assemble import assemble
from apportion.runs.readings import Readings
from apportion.runs.resolver import Draft, Resolver
from apportion.runs.run import Ask, Call, Past, PastRuns, Run, Scoring, answered
from apportion.runs.spelling import spelling_note
from apportion.runs.step_record import StepRecord
from apportion.runs.step_scores import recorded_steps, remember_full_prompt
from apportion.runs.target_text import Targets
from apportion.runs.text_record import TEXTS, archive_of, notes_on, texts_of
from apportion.runs.text_stages import TextStages
from apportion.runs.together import share_scores
from apportion.runs.white_box import WhiteBox
from apportion.scoring.batches import Batches
from apportion.scoring.readout import Readout
from apportion.scoring.scorer import Scorer, Tally
from apportion.scoring.text_source import Archive
from apportion.scoring.writer import identity_of_texts

if TYPE_CHECKING:
    from apportion.hooks.manager import Plugins
    from apportion.protocols.methods import Estimate
    from apportion.protocols.request import Request
    from apportion.results.attribution import Attribution

__all__ = ["Stages"]

FEW_TOKENS, SMALL_SHARE = 512, 0.1
"""Another spelling is scored if it takes this many tokens, or this share of the tokens of the run."""

LOG_PROB = "log_prob"
"""The target function by which two spellings are compared."""


class Stages:
    """Stages of the runs of one explainer: resolve, generate, score and assemble.

    Args:
        plugins: hooks and registries.
        session: session of the open model.
        notes: notes on the choice of the backend, for results.
        share: shared prefixes may be read only once.
        report: receives progress events.

    Attributes:
        past: past runs, kept for as long as their results live.
        resolver: resolves arguments.
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
        self._texts = TextStages(plugins, session, self._targets)

    @contextmanager
    def run(self, *, silent: bool = False) -> Iterator[Run]:
        """Context of a single run; at its end, even after an error, prefixes are released and observers notified.

        They are released at the beginning too, because the model may have changed since.

        Args:
            silent: observers hear of nothing, because the run only estimates what another one costs.
        """
        run = Run(_unheard if silent else self.report, trial=silent)
        self.release()
        try:
            yield run
        except BaseException as error:
            self.release()
            if isinstance(error, ServerError) and not silent:
                error.args = (f"{error} {self._saved(run.tally.evaluations)}",)
            self.end(run, error)
            raise
        self.release()
        self.end(run, None)

    def resolve(self, run: Run, arguments: Mapping[str, Any]) -> Draft:
        """Check the arguments of ``attribute`` and resolve names, without the model.

        Raises:
            InputError: an argument is invalid.
            CapabilityError: the session lacks a capability that the method needs.
        """
        return self.resolver.draft(run.id, **arguments)

    def generate(self, run: Run, draft: Draft) -> Request:
        """Complete the request: the model writes the target if none was given.

        Raises:
            CapabilityError: the session cannot generate.
            InputError: the model writes nothing, or its generation does not know an option.
        """
        if draft.parts["samples"]:
            run.request = self._texts.request(run, draft)
            return run.request
        if draft.generation is None:
            assert draft.target is not None
            run.request = draft.request(draft.target)
        else:
            run.report(ProgressEvent("generate"))
            target, used = self._targets.written(draft.prompt, draft.generation, draft.seed)
            run.request = replace(draft.request(target), generation=used.to_dict())
        run.spellings = draft.spellings
        return run.request

    def begin(self, run: Run) -> None:
        """Notify observers before the run."""
        # Taken now, because nothing should fail after everything has been scored.
        run.fingerprint = self._fingerprint(run.resolved.samples)
        self._plugins.call("apportion_before_run", request=run.resolved)

    def earlier(self, run: Run, result: Attribution, *, rescored_by: tuple[object, object] | None = None) -> Past:
        """Return the run that made a result, to continue from its scores.

        For a result that was read from a file, copied, or made by another explainer, its request is made again. Its
        scores are then those in the cache, if there is one.

        Args:
            run: the run that continues.
            result: the result.
            rescored_by: a target function and its options, in place of those of the result, if only its texts count.

        Raises:
            InputError: the model has changed since, or is another one, or the request cannot be made again.
        """
        recipe = recipe_in(result)
        past = self.past.of(result)
        if past is None:
            check_same_model(result, self._session, self._fingerprint(result.provenance.samples), self._versions)
            request = request_again(result, run.id, self.resolver, self._plugins["inputs"], rescored_by)
            known = rescored_by is not None or may_be_mixed(result, self._session)
            past = Past(
                request,
                Tally(notes=[*recipe.notes]),
                Memory(),
                0.0,
                steps=StepRecord.of_result(result),
                archive=archive_of(result) if known else Archive(),
            )
            if rescored_by is None:
                self.past.keep(result, past)
        elif self._fingerprint(result.provenance.samples) != result.provenance.fingerprint:
            raise InputError(
                "The model has changed since this result was made, so its scores are those of another model. Run "
                "attribute() again."
            )
        return past

    def note_new_texts(self, run: Run, result: Attribution) -> None:
        """Add a note if a result from a file was given new texts, and nothing shows that the model is the same."""
        if run.tally.evaluations and self.past.of(result) is None and not may_be_mixed(result, self._session):
            run.tally.notes.append(
                f"{counted(run.tally.evaluations, 'prompt')} had no texts in the file; those written now may be of "
                "another model"
            )

    def shared(self, results: Sequence[Attribution], pasts: Sequence[Past]) -> Past:
        """Make one memory of the runs of several results of one game, which all of them have from now on."""
        memory, archive, values = share_scores(pasts)
        for result, past in zip(results, pasts, strict=True):
            self.past.keep(result, replace(past, memory=memory, archive=archive, text_values=values))
        return replace(pasts[0], memory=memory, archive=archive, text_values=values)

    def readings(self, run: Run, batches: Batches, ask: Ask | None = None) -> Readings:
        """Make a reader of single prompts, each followed by the target of a run; it counts apart from the run.

        Args:
            run: the run, with its request.
            batches: plans and runs batches.
            ask: takes every question to the session; ``None`` to answer immediately.
        """

        def scorer(request: Request, tally: Tally) -> Scorer:
            return self.scorer(replace(run, tally=tally), request, batches)

        return Readings(self._session, run.resolved, scorer, ask or answered)

    def record_steps(self, run: Run, batches: Batches, ask: Ask | None = None) -> None:
        """Record the step scores of a run, before its method: an error in one of them should cost no time.

        Args:
            run: the run, with its request.
            batches: plans and runs batches.
            ask: takes every question to the session; ``None`` to answer immediately.
        """
        request = run.resolved
        if not request.step_scores:
            return
        readings = self.readings(run, batches, ask)
        run.steps = recorded_steps(request, readings)
        if remember_full_prompt(request, readings, run.memory):
            run.tally.take_one(run.steps.tally)

    def batches(self) -> Batches:
        """Make the planner of batches; concurrent runs share one."""
        return Batches(self._session, share=self._share)

    def game(
        self, run: Run, batches: Batches, ask: Ask | None = None, spent: frozenset[Hashable] = frozenset()
    ) -> Game:
        """Make the game that the method queries.

        Args:
            run: the run, with its request, memory and counts.
            batches: plans and runs batches.
            ask: takes every question to the session; ``None`` to answer immediately.
            spent: inputs queried by the runs that this one continues.
        """
        request, session = run.resolved, self._session
        if request.samples:
            return self._texts.game(run, ask, spent)
        scorer, put = self.scorer(run, request, batches), ask or answered
        possible, features = None, request.adapter.features
        if any(feature.generated is not None for feature in features):
            explained = getattr(request.target_fn, "explained", None)
            possible = possible_features(features, len(request.target.ids), explained)
            require_causal(scorer.readout, request.target_fn_name, session.info.device)

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
            [feature.name for feature in features],
            1 + len(request.target.ids),
            request.renderer,
            scorer if ask is None else lambda inputs: ask(Scoring(scorer, inputs)),
            budget=request.budget,
            levels=getattr(request.adapter, "levels", ()),
            tokens=tokens,
            inside=self._inside(request, scorer, put),
            memory=run.memory,
            spent=spent,
            possible=possible,
        )

    def compare_spellings(self, run: Run, game: Game, batches: Batches, ask: Ask | None = None) -> None:
        """Add a note if another spelling of the target or contrast is far more likely after the full prompt.

        Args:
            run: the run, after its method.
            game: the game of the run.
            batches: plans and runs batches.
            ask: takes every question to the session; ``None`` to answer immediately.
        """
        functions = self._plugins["targets"]
        if not run.spellings or LOG_PROB not in functions:
            return
        request, put = run.resolved, ask or answered
        log_prob: TargetFunction = functions.get(LOG_PROB).make()

        def score(prompt: ModelInput, ids: tuple[int, ...]) -> float:
            other = replace(request, target=self._targets.of_ids(ids), target_fn=log_prob, reference=None)
            # In a run of its own, because the counts of this one describe its values.
            apart = Run(_unwatched, id=run.id)
            values: Tensor = put(Scoring(self.scorer(apart, other, batches), [prompt]))
            return float(values[0, 0])

        for spelling in run.spellings:
            tokens = len(spelling.meant_prompt.ids) + len(spelling.meant_ids)
            if tokens > max(FEW_TOKENS, SMALL_SHARE * run.tally.forwarded_tokens):
                continue  # a run of a few long prompts would take much longer
            known = None
            if spelling.given_ids == request.target.ids and type(request.target_fn) is type(log_prob):
                value = game.known(torch.ones(game.n_features, dtype=torch.bool))
                known = None if value is None else float(value[0])
            note = spelling_note(spelling, known, score)
            if note is not None:
                run.tally.notes.append(note)

    def finish(self, run: Run, estimate: Estimate, game: Game) -> Attribution:
        """Assemble the result, and pass it to observers."""
        request, seconds = run.resolved, run.before + run.seconds
        texts: list[dict[str, Any]] = []
        if request.samples:
            texts = texts_of(run, game)
            run.tally.notes += [note for note in notes_on(texts, request) if note not in run.tally.notes]
        attribution = assemble(
            request,
            estimate,
            game=game,
            tally=run.tally,
            steps=run.steps,
            info=self._session.info,
            likeness=getattr(self._session, "likeness", None),
            fingerprint=run.fingerprint,
            plugins=self._plugins,
            notes=self._notes,
            versions=self._versions,
            seconds=seconds,
            extras={TEXTS: texts} if request.samples else {},
        )
        past = Past(
            request,
            run.tally,
            run.memory,
            seconds,
            game.forgotten,
            game.asked,
            run.steps,
            run.archive,
            run.text_values,
        )
        self.past.keep(attribution, past)
        self._plugins.call("apportion_after_run", request=request, attribution=attribution)
        return attribution

    def end(self, run: Run, error: BaseException | None) -> None:
        """Notify observers of the end of a run."""
        run.report(ProgressEvent("end", seconds=run.seconds, error=error))

    def _saved(self, evaluations: int) -> str:
        """A sentence on what is left of a run that a server ended."""
        scored = counted(evaluations, "prompt")
        if not evaluations or not self._plugins.hook.apportion_lookup.get_hookimpls():
            return f"{scored} scored; with a cache (cache=True) scores are kept, and another run goes on from there."
        return f"{scored} scored and kept in the cache; run it again to go on."

    def release(self) -> None:
        """Make the session discard what it keeps between batches."""
        self._session.release()

    def scorer(self, run: Run, request: Request, batches: Batches) -> Scorer:
        """Make the scorer of a request; it updates the run's counts."""
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

    def _fingerprint(self, samples: int) -> str:
        """The model's fingerprint; with that of how it writes, if texts are written."""
        found: object = self._session.fingerprint()
        if not isinstance(found, str):
            raise PluginError(
                f"The fingerprint() of the backend {self._session.info.backend!r} returned {found!r:.40}, not a string."
            )
        return f"{found}-{identity_of_texts(self._session)[:8]}" if samples else found

    def _inside(self, request: Request, scorer: Scorer, put: Ask) -> Any:
        """A function that gives the game access to the model's internals; ``None`` if the session does not allow it."""
        session = self._session
        if not isinstance(session, InsideSession) or not WHITE_BOX & session.capabilities:
            return None

        def inside(charge: Charge) -> Inside:
            readout, at_reference = scorer.readout, False
            if Capability.GRADIENTS in request.method.requires:
                require_gradient(readout, request.target_fn_name)
                at_reference = readout.reference_ids == text_only(request.renderer.full()) and is_stationary(readout)
            return GameInside(request, session, WhiteBox(session, scorer, put), charge, stationary=at_reference)

        return inside


def _unwatched(event: ProgressEvent) -> None:
    """Ignore an event."""


def _unheard(event: ProgressEvent) -> None:
    """Take an event of a run that nobody follows."""

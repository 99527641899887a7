"""Runs methods, and checks that they follow their protocol."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from apportion.errors import BudgetError, PluginError, counted
from apportion.failures import failures_of_plugin
from apportion.game.game import Game
from apportion.game.possible import within_possible
from apportion.game.stopping import run_until
from apportion.protocols.backend import WHITE_BOX
from apportion.protocols.methods import Estimate, Method
from apportion.scoring.noise import with_noise

if TYPE_CHECKING:
    from apportion.protocols.request import Request

__all__ = ["WatchedGenerator", "check_estimate", "rehearse", "run_method", "up_to_first_question"]

SAMPLES = "n_samples"
"""Option of white-box methods that sets how many samples are drawn."""


class WatchedGenerator(torch.Generator):
    """A generator on the CPU that knows whether numbers were drawn from it, or its seed or state was read.

    A method or metric that uses it samples, so a result without standard errors is not exact.

    Args:
        seed: its seed.
    """

    def __new__(cls, seed: int) -> WatchedGenerator:
        """Make a generator on the CPU; the argument of ``torch.Generator`` would be a device."""
        return super().__new__(cls)

    def __init__(self, seed: int) -> None:
        self.manual_seed(seed)
        self._start = super().get_state()
        self._read = False

    def initial_seed(self) -> int:
        """Return the seed, with which another generator may be seeded."""
        self._read = True
        return super().initial_seed()

    def get_state(self) -> torch.Tensor:
        """Return the state, with which another generator may go on."""
        self._read = True
        return super().get_state()

    def clone_state(self) -> torch.Generator:
        """Return a copy, from which the same numbers can be drawn."""
        self._read = True
        return super().clone_state()

    def __reduce__(self) -> Any:
        """Copy, as ``copy`` and ``pickle`` do; the same numbers can be drawn from the copy."""
        self._read = True
        return super().__reduce__()

    @property
    def used(self) -> bool:
        """True if its state has changed, or its seed or state was read."""
        return self._read or not torch.equal(self._start, super().get_state())


def check_estimate(name: str, estimate: object, n_features: int, n_outputs: int) -> Estimate:
    """Check an estimate against the protocol: shapes, finite values, no negative errors or magnitudes.

    Raises:
        PluginError: the return value is not an estimate of this game.
    """
    if not isinstance(estimate, Estimate):
        raise PluginError(f"The method {name!r} returned {type(estimate).__name__}, not an apportion.Estimate.")
    wanted = (n_features, n_outputs)
    for part, tensor in (("values", estimate.values), ("std_error", estimate.std_error)):
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor) or tensor.is_complex():
            raise PluginError(f"The method {name!r} returned {part} that are not a real tensor: {tensor!r:.80}.")
        if tuple(tensor.shape) != wanted:
            raise PluginError(
                f"The method {name!r} returned {part} of shape {tuple(tensor.shape)}; this game has "
                f"{counted(n_features, 'feature')} and {counted(n_outputs, 'output')}, so it must be {wanted}."
            )
    if (
        not isinstance(estimate.estimand, str | None)
        or not isinstance(estimate.unit, str | None)
        or not isinstance(estimate.extras, Mapping)
    ):
        raise PluginError(
            f"The method {name!r} returned the estimand {estimate.estimand!r}, the unit {estimate.unit!r} and extras "
            f"{estimate.extras!r:.80}; the first two must be strings or None, and extras must be a dict."
        )
    if isinstance(estimate.notes, str) or not all(isinstance(note, str) for note in estimate.notes):
        raise PluginError(
            f"The method {name!r} returned notes {estimate.notes!r:.80}; notes must be a tuple of sentences."
        )
    _check_finite(name, estimate)
    _check_signs(name, estimate)
    if estimate.std_error is not None and bool(((estimate.std_error < 0) | estimate.std_error.isinf()).any()):
        raise PluginError(f"The method {name!r} returned a negative or infinite standard error (NaN means unknown).")
    if estimate.replicates is not None:
        _check_replicates(name, estimate, n_features)
    return estimate


def _check_signs(name: str, estimate: Estimate) -> None:
    if not isinstance(estimate.signed, bool):
        raise PluginError(f"The method {name!r} returned signed={estimate.signed!r:.40}; it must be True or False.")
    if not estimate.signed and bool((estimate.values < 0).any()):
        raise PluginError(
            f"The method {name!r} returned signed=False, and the negative value {float(estimate.values.min()):g}; "
            "magnitudes are never negative. Return their absolute values, or leave signed=True."
        )


def _check_finite(name: str, estimate: Estimate) -> None:
    tokens = estimate.values[:, 1:]
    scored = estimate.values[:, :1] if tokens.numel() and bool(tokens.isnan().all()) else estimate.values
    if not bool(torch.isfinite(scored).all()):
        bad = (~torch.isfinite(scored)).nonzero()
        feature, output = bad[0].tolist()
        raise PluginError(
            f"The method {name!r} returned values that are not finite: {len(bad)} of {scored.numel()}, such as "
            f"{float(scored[feature, output])} of feature {feature} for output {output}."
        )
    full: object = estimate.full_value
    if full is not None and not (isinstance(full, int | float) and math.isfinite(full)):
        raise PluginError(f"The method {name!r} returned full_value={full!r:.40}; it must be a finite number or None.")


def _check_replicates(name: str, estimate: Estimate, n_features: int) -> None:
    found: object = estimate.replicates
    if not isinstance(found, Tensor) or found.is_complex():
        raise PluginError(f"The method {name!r} returned replicates that are not a real tensor: {found!r:.80}.")
    if found.ndim != 2 or found.shape[0] < 2 or found.shape[1] != n_features:
        raise PluginError(
            f"The method {name!r} returned replicates of shape {tuple(found.shape)}; they must be two or more rows of "
            f"{counted(n_features, 'value')}, one per feature."
        )
    if not bool(torch.isfinite(found).all()):
        raise PluginError(f"The method {name!r} returned replicates that are not finite.")
    if estimate.std_error is None:
        raise PluginError(
            f"The method {name!r} returned replicates without standard errors, which mean that its values are exact. "
            "Return std_error as well, with NaN where unknown."
        )


def run_method(
    request: Request, game: Game, budget: int | None = None, rng: WatchedGenerator | None = None
) -> Estimate:
    """Run the method of a request, and check its estimate against the protocol.

    Values without standard errors count as exact, unless the method drew random numbers: then the errors are unknown,
    and a note says so.

    Args:
        request: the run's request.
        game: the game to query.
        budget: maximum number of distinct coalitions in one step of a run with ``until``, whose estimate is returned as
            it is. ``None`` for the whole run, with the request's own budget.
        rng: generator of all steps; each starts from the seed.

    Raises:
        PluginError: the method failed, or the return value is not an estimate of this game.
        BudgetError: the budget is too small for the method.
    """
    limit = request.coalition_budget
    looks_inside = bool(WHITE_BOX & request.method.requires)
    rng = rng or WatchedGenerator(request.seed)
    if budget is None and request.until is not None and limit is not None and not looks_inside:
        estimate = run_until(lambda step: run_method(request, game, step, rng), game, limit, request.until)
        return _judged(request, estimate, sampled=rng.used)
    rng.manual_seed(request.seed)
    allowed = limit if budget is None else budget
    try:
        # Whatever mode the caller is in, a method that needs gradients gets them.
        with (
            torch.inference_mode(False) if looks_inside else nullcontext(),
            torch.set_grad_enabled(looks_inside or torch.is_grad_enabled()),
            failures_of_plugin(f"The method {request.method_name!r}", unless=(torch.OutOfMemoryError, MemoryError)),
        ):
            estimate = request.method.run(game, budget=allowed, rng=rng, **request.options)
    except BudgetError as error:
        if request.renderer.draws == 1 or request.budget is None:
            raise
        raise BudgetError(
            f"{error} (Each coalition takes {request.renderer.draws} evaluations, one for each combination of "
            f"baselines, so a budget of {request.budget} allows {counted(request.coalition_budget or 0, 'coalition')}.)"
        ) from error
    estimate = check_estimate(request.method_name, estimate, game.n_features, game.n_outputs)
    if not bool(game.possible.all()):
        estimate = within_possible(estimate, game.possible, estimate.estimand or request.method.estimand)
    if request.samples > 1:
        estimate = with_noise(estimate, known=estimate.std_error is not None or not rng.used)
    return estimate if budget is not None else _judged(request, estimate, sampled=rng.used)


def _judged(request: Request, estimate: Estimate, *, sampled: bool) -> Estimate:
    """The estimate of a whole run: exact if it has no standard errors, but of unknown error if it was sampled."""
    if estimate.std_error is not None:
        return _fixed_samples(request, estimate)
    why = "the values are exact"
    if sampled:
        why = f"the method {request.method_name!r} draws at random, but returns no standard errors"
        estimate = replace(estimate, std_error=torch.full_like(estimate.values, torch.nan))
    if request.until is not None:
        return replace(estimate, notes=(*estimate.notes, f"until={request.until:g} had no effect: {why}"))
    return replace(estimate, notes=(*estimate.notes, why)) if sampled else estimate


def _fixed_samples(request: Request, estimate: Estimate) -> Estimate:
    """The estimate, with a note if a method that looks inside the model draws no more samples to please ``until``."""
    if request.until is None or not WHITE_BOX & request.method.requires:
        return estimate
    counts = [name for name in inspect.signature(request.method.run).parameters if name == SAMPLES]
    how = f", which only {counts[0]}= changes" if counts else ""
    note = f"until={request.until:g} had no effect: {request.method_name!r} draws a fixed number of samples{how}"
    return replace(estimate, notes=(*estimate.notes, note))


class _FirstQuestionError(Exception):
    """Ends a rehearsal when it first queries the game."""


@dataclass(frozen=True, slots=True)
class _OnlyModules:
    """The modules of the model; anything else that an ``Inside`` gives is a query.

    Attributes:
        modules: returns the modules by name.
        ask: is called by the first query.
    """

    modules: Callable[[], Mapping[str, nn.Module]]
    ask: Callable[[object], NoReturn]

    def __getattr__(self, name: str) -> NoReturn:
        self.ask(name)


def rehearse(
    method: Method,
    n_features: int,
    budget: int | None,
    seed: int,
    options: Mapping[str, Any],
    modules: Callable[[], Mapping[str, nn.Module]] | None = None,
) -> None:
    """Run a method up to its first query, so that invalid arguments are rejected before the model runs.

    Args:
        method: the method.
        n_features: number of features.
        budget: the budget.
        seed: seed of its generator.
        options: its options.
        modules: returns the modules of the model by name, if a white-box method may look at them: it may reject names.

    Raises:
        InputError: the method rejects its arguments, such as a budget that is too small or an option out of range.
    """
    rng = torch.Generator().manual_seed(seed)
    up_to_first_question(lambda game: method.run(game, budget=budget, rng=rng, **options), n_features, modules)


def up_to_first_question(
    run: Callable[[Game], object], n_features: int, modules: Callable[[], Mapping[str, nn.Module]] | None = None
) -> None:
    """Call a function that queries a game, and end it at its first query; errors before that are raised.

    A look at the model's ``modules``, if they are given, is not a query.
    """
    asked = False

    def ask(_: object) -> NoReturn:
        nonlocal asked
        asked = True
        raise _FirstQuestionError

    def inside(charge: object) -> Any:
        return ask(charge) if modules is None else _OnlyModules(modules, ask)

    names = [str(i) for i in range(n_features)]
    try:
        run(Game(names, 1, lambda mask: [tuple(row) for row in mask.tolist()], ask, tokens=ask, inside=inside))
    except _FirstQuestionError:
        return
    except Exception:
        # An error caused by the interruption itself means nothing.
        if not asked:
            raise

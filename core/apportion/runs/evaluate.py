"""Runs metrics, and checks that they follow their protocol."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, PluginError, counted, shown, unknown_name
from apportion.failures import failures_of_plugin
from apportion.game.game import Game
from apportion.game.method_runner import WatchedGenerator, up_to_first_question
from apportion.hooks.object_check import protocol_faults
from apportion.hooks.registry import Registry
from apportion.options import check_instance, check_options, name_of, named_options, whole_number
from apportion.protocols.metrics import RANDOM_ORDERS, Measurement, Metric
from apportion.results.attribution import Attribution
from apportion.results.evaluation import Evaluation
from apportion.results.scored import scored

__all__ = ["check_measurement", "checked_orders", "chosen_metrics", "generator_of", "measure_all"]


def chosen_metrics(
    registry: Registry, metrics: Sequence[str | Metric] | None, options: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Metric, Mapping[str, Any]]]:
    """Resolve metrics and their options, by name.

    Args:
        registry: registered metrics.
        metrics: names or objects; ``None`` for all that are registered.
        options: options by the metric's name.

    Raises:
        InputError: a name is unknown, an object is not a metric, or options are given for another metric.
    """
    if isinstance(metrics, str):
        raise InputError(f"metrics={shown(metrics)} is one metric; write metrics=[{shown(metrics)}].")
    listed = registry.names() if metrics is None else metrics
    if not isinstance(listed, Sequence) or not all(isinstance(m, str) or hasattr(m, "measure") for m in listed):
        raise InputError(f"metrics={shown(metrics)} must be a list of names or Metric objects, or None for all.")
    found: dict[str, Metric] = {}
    for given in listed:
        check_instance("metric", given)
        name = given if isinstance(given, str) else name_of(given)
        found[name] = registry.get(given).make() if isinstance(given, str) else given
    if not isinstance(options, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Mapping) and all(isinstance(option, str) for option in value)
        for name, value in options.items()
    ):
        raise InputError(f"options={shown(options)} must hold a dict for each metric: {{'lds': {{'masks': 128}}}}.")
    for name in options:
        if name not in found:
            if name in registry:
                raise InputError(
                    f"options= are given for the metric {name!r}, which is not among metrics={shown(list(found))}."
                )
            raise unknown_name("metric", name, registry.names())
    return {name: (metric, options.get(name, {})) for name, metric in found.items()}


def measure_all(
    game: Game,
    attribution: Attribution,
    metrics: Mapping[str, tuple[Metric, Mapping[str, Any]]],
    *,
    seed: int = 0,
    random_orders: int = RANDOM_ORDERS,
    all_by_chance: bool = False,
    count: Callable[[], int] | None = None,
) -> Evaluation:
    """Evaluate an attribution with each metric, in order.

    Anything that can be rejected without the model is rejected before any metric queries the game. Each metric has its
    own random generator, so that its measurement depends neither on the other metrics nor on their order.

    Args:
        game: game of the attribution's prompt and target; coalitions that it has already scored cost nothing.
        attribution: the attribution to evaluate.
        metrics: each metric and its options, by name.
        seed: seed of every random draw.
        random_orders: number of random orders that metrics with a ``yardstick`` are also measured for; an even number.
        all_by_chance: measure all metrics for the random orders, not only those with a ``yardstick``.
        count: number of inputs that were scored so far, without those that a cache knew; ``None`` for the game's.

    Raises:
        InputError: there are no metrics, the number of features differs, or an option is unknown or out of range.
        PluginError: a metric breaks its protocol; the message names it.
    """
    random_orders = checked_orders(random_orders)
    values = torch.tensor(attribution.values, dtype=torch.float64)
    if len(values) != game.n_features:
        raise InputError(
            f"The attribution has {counted(len(values), 'feature')}, but the game has {game.n_features}; use the same "
            "prompt."
        )
    if not metrics:
        raise InputError("The list of metrics must not be empty.")
    for name, (metric, options) in metrics.items():
        _check_metric(name, metric, options)
        with failures_of_plugin(f"The metric {name!r}"):
            rehearsal = partial(_measure, metric, values, generator_of(seed, name), options)
            up_to_first_question(rehearsal, game.n_features)
    shuffled = _in_random_order(values, random_orders, seed)
    spent = count or (lambda: game.scored)
    before, found, random = spent(), {}, {}
    for name, (metric, options) in metrics.items():
        found[name] = _measured(metric, name, values, seed, options, game)
        if (all_by_chance or getattr(metric, "yardstick", False)) and shuffled:
            random[name] = tuple(_measured(metric, name, each, seed, options, game) for each in shuffled)
    return Evaluation(
        measurements=found,
        higher_is_better={name: metric.higher_is_better for name, (metric, _) in metrics.items()},
        options={name: _all_options(metric, options) for name, (metric, options) in metrics.items()},
        method=attribution.provenance.method,
        estimand=attribution.estimand,
        unit=attribution.score_unit,
        target_fn=attribution.provenance.target_fn,
        scored=scored(attribution.provenance),
        n_features=game.n_features,
        target=attribution.whole_target,
        contrast=attribution.provenance.contrast,
        seed=seed,
        evaluations=spent() - before,
        random=random,
        plugins=attribution.plugins,
        provenance=attribution.provenance,
        signed=attribution.signed,
    )


def check_measurement(name: str, found: object) -> Measurement:
    """Check a measurement against the protocol: a finite value, a valid standard error, and extras with names.

    Raises:
        PluginError: the return value is not a valid measurement.
    """
    if not isinstance(found, Measurement):
        raise PluginError(f"The metric {name!r} returned {type(found).__name__}, not an apportion.Measurement.")
    if not _is_number(found.value) or not math.isfinite(found.value):
        raise PluginError(f"The metric {name!r} returned the value {found.value!r:.80}; it must be a finite float.")
    error = found.std_error
    if error is not None and (not _is_number(error) or error < 0 or math.isinf(error)):
        raise PluginError(
            f"The metric {name!r} returned the standard error {error!r:.80}; it must be a float of at least 0, NaN "
            "if it is unknown, or None if nothing was sampled."
        )
    if not isinstance(found.extras, Mapping):
        raise PluginError(f"The metric {name!r} returned extras {found.extras!r:.80}; they must be a dict.")
    return found


def generator_of(seed: int, name: str) -> WatchedGenerator:
    """Make the random generator of one metric, distinct from those of the method and of other metrics."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return WatchedGenerator(int.from_bytes(digest[:7], "big"))


def checked_orders(count: object) -> int:
    """Check the number of random orders.

    Raises:
        InputError: it is not a whole number, below 0, or odd.
    """
    checked = whole_number("random_orders", count, least=0)
    if checked % 2:
        raise InputError(f"random_orders={checked} must be even, because each order is followed by its reverse.")
    return checked


def _in_random_order(values: Float[Tensor, " F"], count: int, seed: int) -> list[Float[Tensor, " F"]]:
    """The same values, dealt to the features at random: in some orders, and in the reverse of each.

    Removing the highest first in one order scores what adding the highest first in its reverse does, so that deletion
    and insertion share their evaluations.
    """
    rng = generator_of(seed, "random orders")
    ranked = values.sort(descending=True).values
    found = []
    for _ in range(count // 2):
        order = torch.randperm(len(values), generator=rng)
        found += [torch.empty_like(values).scatter(0, each, ranked) for each in (order, order.flip(0))]
    return found


def _measured(
    metric: Metric, name: str, values: Float[Tensor, " F"], seed: int, options: Mapping[str, Any], game: Game
) -> Measurement:
    """Measure, and check the measurement; if it was drawn at random and has no standard error, that is unknown."""
    rng = generator_of(seed, name)
    with failures_of_plugin(f"The metric {name!r}"):
        found = check_measurement(name, _measure(metric, values, rng, options, game))
    return replace(found, std_error=math.nan) if found.std_error is None and rng.used else found


def _measure(
    metric: Metric, values: Float[Tensor, " F"], rng: torch.Generator, options: Mapping[str, Any], game: Game
) -> object:
    # A copy, so that a metric that sorts in place does not affect the others.
    return metric.measure(game, values.clone(), rng=rng, **options)


def _check_metric(name: str, metric: Metric, options: Mapping[str, Any]) -> None:
    for fault in protocol_faults("metrics", metric):
        raise PluginError(f"The metric {name!r} {fault}")
    check_options(f"metric {name!r}", metric.measure, options)


def _all_options(metric: Metric, options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: p.default for name, p in named_options(metric.measure).items()} | dict(options)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Faithfulness metrics, which measure how well an attribution predicts what the model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

__all__ = ["RANDOM_ORDERS", "Measurement", "Metric"]

RANDOM_ORDERS = 4
"""Default number of random orders of the features that metrics with a ``yardstick`` are also measured for."""


@dataclass(frozen=True)
class Measurement:
    """Result of a metric.

    Attributes:
        value: the measured value.
        std_error: its standard error, for metrics that sample; NaN if it is unknown, and ``None`` only if the value is
            exact. Without an error from a metric that draws from its ``rng``, apportion calls it unknown.
        extras: anything else worth keeping, such as the points of a curve: numbers, strings, lists and arrays.
    """

    value: float
    std_error: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """Measures the faithfulness of an attribution by querying the game.

    ``measure(game, values, *, rng, **options) -> Measurement``: ``game`` has the same features as the attribution, and
    coalitions that it has already scored cost nothing. ``values`` is ``Float[F]``, one score per feature, to be
    compared with the game's first output (the whole target). ``rng`` is the only source of randomness. Options are
    keyword-only parameters with defaults.

    The optional attribute ``yardstick`` is ``True`` for a metric that has no natural zero. It is also measured for the
    same values in random order, and results show both (``Evaluation.random``).

    A metric whose ``extras`` can be plotted may also have ``plot(evaluations, **options)``, which draws the
    ``Evaluation`` objects of one target as a matplotlib ``Figure``; ``Evaluation.plot`` calls it.
    """

    @property
    def higher_is_better(self) -> bool:
        """True if a larger value means a more faithful attribution."""
        ...

    # A property, as ``Method.run`` is.
    @property
    def measure(self) -> Callable[..., Measurement]:
        """Measure one value per feature by querying the game."""
        ...

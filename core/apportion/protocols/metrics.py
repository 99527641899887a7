"""Faithfulness metrics: how well an attribution predicts what the model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

__all__ = ["Measurement", "Metric"]


@dataclass(frozen=True)
class Measurement:
    """What a metric found.

    Attributes:
        value: the measure itself.
        std_error: its standard error, for metrics that draw; ``None`` when it is exact.
        extras: anything else worth keeping, such as the points of a curve; numbers, texts, lists and arrays.
    """

    value: float
    std_error: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Metric(Protocol):
    """Judges the attribution of one output by asking the game.

    ``measure(game, values, *, rng, **options) -> Measurement``: ``game`` has the same features as the
    attribution, and what it has scored already costs nothing; ``values`` is ``Float[F]``, one score for each
    feature, to be judged against the game's first output (the whole target). ``rng`` is the only source of
    randomness. Options are keyword-only parameters with defaults.

    A metric whose ``extras`` are worth a picture may also have ``plot(evaluations, **options)``, which draws the
    ``Evaluation`` objects of one target as a matplotlib ``Figure``; ``Evaluation.plot`` finds it.
    """

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value means a more faithful attribution."""
        ...

    # The options stand for ``**options: Any``, which mypy would demand of every metric.
    measure: Callable[..., Measurement]
    """Judge one value for each feature by asking the game."""

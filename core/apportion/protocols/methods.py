"""Methods, samplers, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apportion.protocols.backend import Capability

__all__ = ["Coalitions", "Estimate", "Method", "Sampler"]


@dataclass(frozen=True)
class Estimate:
    """What a method found.

    Attributes:
        values: the attribution of each of the game's K outputs to each feature.
        std_error: standard errors of ``values``; ``None`` when they are exact, NaN where unknown.
        estimand: what ``values`` estimate, when it differs from the method's ``estimand``.
        extras: anything else worth keeping with the result; numbers, texts, lists and arrays.
        notes: sentences that a reader of the result should know.
        unit: what one unit of ``values`` is, where it is not that of the target function.
        replicates: what ``values[:, 0]`` could have been with other draws, two or more of them: a bootstrap of what
            was asked, spread like ``std_error``. They tell whether the features that come first would come first
            again; without them independent normal errors are assumed.
    """

    values: Float[Tensor, "F K"]
    std_error: Float[Tensor, "F K"] | None = None
    estimand: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unit: str | None = None
    replicates: Float[Tensor, "R F"] | None = None


@dataclass(frozen=True)
class Coalitions:
    """Coalitions that a sampler drew, and the weight of each in a regression.

    Attributes:
        mask: one coalition a row; rows may repeat.
        weight: above 0.
        draw: rows of one number were drawn together, such as a coalition and its complement; ``None``: each by
            itself. Standard errors take what was drawn together as one.
        share: how much of what could have been drawn in a row's place was drawn; 1 where it was everything, which
            brings no sampling error. ``None``: 0 throughout.
    """

    mask: Bool[Tensor, "S F"]
    weight: Float[Tensor, " S"]
    draw: Int[Tensor, " S"] | None = None
    share: Float[Tensor, " S"] | None = None


@runtime_checkable
class Method(Protocol):
    """An attribution method: ``run(game, *, budget, rng, **options) -> Estimate``.

    ``estimand`` names what is computed (``"Shapley value"``); ``requires`` is empty for methods that
    only ask for values of coalitions. Options of a method are keyword-only parameters of ``run``, each
    with a default; ``budget`` and ``rng`` are always passed. An option called ``sampler`` arrives as a
    ``Sampler`` wherever its value, given or default, is the name of a registered one.

    An optional attribute ``adaptive`` is ``True`` where what a method asks depends on what it was told, so that its
    cost is not known before.
    """

    @property
    def estimand(self) -> str:
        """What the values estimate."""
        ...

    @property
    def requires(self) -> frozenset[Capability]:
        """What the session must be able to do, beyond log-probabilities."""
        ...

    # The options stand for ``**options: Any``, which mypy would demand of every method.
    run: Callable[..., Estimate]
    """Ask the game, at most ``budget`` coalitions (``None``: its own choice), drawing from ``rng`` only."""


@runtime_checkable
class Sampler(Protocol):
    """Draws coalitions for a regression method."""

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """At most ``budget`` distinct coalitions over ``n_features`` features, reproducible by ``rng``."""
        ...

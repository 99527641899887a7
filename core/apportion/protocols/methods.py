"""Methods, samplers, and their return types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from apportion.protocols.backend import Capability

__all__ = ["Coalitions", "Estimate", "Method", "Sampler", "beyond_values"]


@dataclass(frozen=True)
class Estimate:
    """Result of a method.

    Attributes:
        values: the attribution of each of the game's K outputs to each feature. If only the whole target was scored,
            the columns of its tokens are NaN.
        std_error: standard errors of ``values``; NaN where unknown, and ``None`` only if the values are exact. Without
            errors from a method that draws from its ``rng``, apportion calls them unknown.
        estimand: the quantity that ``values`` estimate, if it differs from the method's ``estimand``.
        extras: anything else worth keeping with the result: numbers, strings, lists and arrays.
        notes: sentences that a reader of the result should know.
        unit: unit of ``values``, if it differs from that of the target function.
        replicates: at least two bootstrap replicates of ``values[:, 0]``, resampled from the evaluated coalitions, with
            the spread of ``std_error``. They show whether the ranking of the features is stable; without them, errors
            are assumed to be independent and normal.
        signed: the sign of a value says whether the feature raises or lowers the target's score. ``False`` for
            magnitudes, such as attention weights or norms of gradients, which are never negative: views show them
            without signs, and comparisons take the magnitudes of other results.
        full_value: score of the full prompt, if it was found without evaluating that coalition.
    """

    values: Float[Tensor, "F K"]
    std_error: Float[Tensor, "F K"] | None = None
    estimand: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unit: str | None = None
    replicates: Float[Tensor, "R F"] | None = None
    signed: bool = True
    full_value: float | None = None


@dataclass(frozen=True)
class Coalitions:
    """Coalitions that a sampler drew, and the weight of each in a regression.

    Attributes:
        mask: one coalition per row; rows may repeat.
        weight: weight of each row, above 0.
        draw: number of the draw that each row belongs to; rows drawn together, such as a coalition and its complement,
            share a number. Standard errors treat them as one draw. ``None`` if each row was drawn separately.
        share: sampling fraction of each row: the drawn fraction of the coalitions that could have been drawn in its
                place. At 1, all of them were drawn, and the row adds no sampling error. ``None`` for 0 throughout.
    """

    mask: Bool[Tensor, "S F"]
    weight: Float[Tensor, " S"]
    draw: Int[Tensor, " S"] | None = None
    share: Float[Tensor, " S"] | None = None


@runtime_checkable
class Method(Protocol):
    """An attribution method: ``run(game, *, budget, rng, **options) -> Estimate``.

    ``estimand`` names the quantity that is estimated (``"Shapley value"``). ``requires`` is empty for methods that need
    only the values of coalitions, and holds ``LOG_PROBS`` if these must be of tokens and not of texts. Options of a
    method are keyword-only parameters of ``run``, each with a default; ``budget`` and ``rng`` are always passed. If the
    value of an option called ``sampler``, given or default, is the name of a registered sampler, the method receives
    the ``Sampler`` itself.

    The optional attribute ``adaptive`` is ``True`` if the coalitions that a method queries depend on earlier values, so
    that its cost is not known in advance. Two more are strings for listings, such as ``apportion methods``: ``family``,
    one of ``"perturbation"``, ``"gradient"``, ``"internals"`` and ``"interactions"`` or another word (if it is missing,
    it follows from ``requires``), and ``cost``, a phrase such as ``"F + 1 evaluations"`` or ``"one forward pass; one
    backward pass per output"``, with F features.
    """

    @property
    def estimand(self) -> str:
        """Name of the quantity that the values estimate."""
        ...

    @property
    def requires(self) -> frozenset[Capability]:
        """Capabilities that the session must have, in addition to log-probabilities."""
        ...

    # Not a method with ``**options: Any``: mypy would then require that of every method. And not a variable, which the
    # method of a class is not.
    @property
    def run(self) -> Callable[..., Estimate]:
        """Query at most ``budget`` coalitions (``None``: as many as the method chooses), drawing only from ``rng``."""
        ...


def beyond_values(method: Method) -> frozenset[Capability]:
    """The capabilities that a method requires beyond the values of coalitions."""
    return method.requires - {Capability.LOG_PROBS}


@runtime_checkable
class Sampler(Protocol):
    """Draws coalitions for a regression method.

    What a regression estimates depends on how its coalitions are drawn and weighted. The optional attribute
    ``estimands`` is a tuple of the estimands that a sampler draws for: ``("Shapley value",)`` if the weighted share of
    the coalitions of size s of n is proportional to 1 / (s (n − s)), ``("Banzhaf value",)`` if it is proportional to
    their number, C(n, s). A built-in method whose estimand is not among them calls its values regression coefficients.
    """

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> Coalitions:
        """Draw at most ``budget`` distinct coalitions of ``n_features`` features, reproducibly given ``rng``."""
        ...

"""Methods of apportion that draw from PyTorch's global generator, as Captum's do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate, Method

__all__ = ["GlobalDraws", "Known", "game_of"]

Known = dict[tuple[bool, ...], Float[Tensor, " K"]]
"""Values of coalitions that were scored before."""
Observe = Callable[[Bool[Tensor, "S F"], Float[Tensor, "S K"]], None]


class GlobalDraws:
    """A method that draws what Captum draws after the same ``torch.manual_seed``.

    Args:
        inner: the method; it draws all coalitions before it queries the first.
        options: its options.
        known: values of coalitions; new ones are added.
        observe: receives coalitions that are scored, and their values.

    Attributes:
        estimand: the inner method's.
        requires: the inner method's.
        end: state of the generator after the draws; resampling for standard errors, which Captum does not do, does not
            count.
    """

    def __init__(
        self, inner: Method, options: Mapping[str, Any], known: Known, observe: Observe = lambda mask, values: None
    ) -> None:
        self.estimand: str = inner.estimand
        self.requires: frozenset[Capability] = inner.requires
        self._inner, self._options, self._known, self._observe = inner, options, known, observe
        self._start = torch.get_rng_state()
        self.end = self._start

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        """Run the method with a generator that starts where PyTorch's is."""
        generator = torch.Generator()
        generator.set_state(self._start)
        drawn: list[Tensor] = []

        def values(mask: Bool[Tensor, "S F"]) -> Float[Tensor, "S K"]:
            drawn.append(generator.get_state())
            rows = [tuple(row) for row in mask.tolist()]
            new = torch.tensor([row not in self._known for row in rows])
            if bool(new.any()):
                found = game.values(mask[new])
                self._observe(mask[new], found)
                unknown = [row for row, is_new in zip(rows, new.tolist(), strict=True) if is_new]
                self._known.update(zip(unknown, found, strict=True))
            return torch.stack([self._known[row] for row in rows])

        queried = game_of(values, game.n_features, game.n_outputs)
        estimate = self._inner.run(queried, budget=budget, rng=generator, **self._options)
        self.end = drawn[0] if drawn else generator.get_state()
        return estimate


def game_of(values: Callable[[Bool[Tensor, "S F"]], Float[Tensor, "S K"]], features: int, outputs: int) -> Game:
    """A game of a function of coalitions, whose errors are raised as they are."""

    def render(mask: Bool[Tensor, "S F"]) -> Sequence[tuple[bool, ...]]:
        return [tuple(row) for row in mask.tolist()]

    def score(rows: Sequence[Any]) -> Float[Tensor, "N K"]:
        return values(torch.tensor(rows, dtype=torch.bool).reshape(len(rows), features))

    return Game([str(number) for number in range(features)], outputs, render, score)

"""The game: a value for every coalition of features, each distinct model input scored once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, CapabilityError, InputError, ScoreError, listing
from apportion.inputs import Alternatives

if TYPE_CHECKING:
    from apportion.backend import WhiteBox

__all__ = ["Game"]

Render = Callable[[Bool[Tensor, "S F"]], Sequence[Hashable]]
Score = Callable[[Sequence[Any]], Float[Tensor, "N K"]]


class Game:
    """The value function v that methods ask; ``v(S)`` has K outputs, the whole target and each token.

    Coalitions that were asked before come from memory. Coalitions that render to the same input are
    scored once, and only inputs that were really scored count as ``evaluations``.

    Args:
        feature_names: one for each feature; for error messages.
        n_outputs: K.
        render: coalitions to inputs; an ``Alternatives`` is averaged with equal weights.
        score: distinct inputs to values.
        budget: the most distinct inputs to score; ``None`` for no limit.
        white_box: gives access to the model's inside, where the session allows it.
    """

    def __init__(
        self,
        feature_names: Sequence[str],
        n_outputs: int,
        render: Render,
        score: Score,
        *,
        budget: int | None = None,
        white_box: Callable[[], WhiteBox] | None = None,
    ) -> None:
        self.feature_names = tuple(feature_names)
        self.n_features = len(self.feature_names)
        self.n_outputs = n_outputs
        self.budget = budget
        self._render = render
        self._score = score
        self._white_box = white_box
        self._coalitions: dict[bytes, Float[Tensor, " K"]] = {}
        self._inputs: dict[Hashable, Float[Tensor, " K"]] = {}

    @classmethod
    def from_function(
        cls,
        function: Callable[[Bool[Tensor, "S F"]], Tensor],
        n_features: int,
        *,
        n_outputs: int = 1,
        budget: int | None = None,
    ) -> Game:
        """A game without a model, for tests and teaching.

        Args:
            function: coalitions ``Bool[S, F]`` to values ``Float[S]`` or ``Float[S, K]``.
            n_features: F.
            n_outputs: K.
            budget: the most distinct coalitions to evaluate.
        """

        def score(rows: Sequence[Any]) -> Float[Tensor, "N K"]:
            values = function(torch.tensor(rows, dtype=torch.bool).reshape(len(rows), n_features))
            return values.double().reshape(len(rows), n_outputs)

        def render(mask: Bool[Tensor, "S F"]) -> Sequence[Hashable]:
            return [tuple(row) for row in mask.tolist()]

        return cls([str(i) for i in range(n_features)], n_outputs, render, score, budget=budget)

    @property
    def evaluations(self) -> int:
        """Distinct inputs scored so far."""
        return len(self._inputs)

    def values(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, "S K"]:
        """v of every coalition, float64 on the CPU.

        Args:
            mask: one coalition a row; ``True`` means that the feature is present.

        Raises:
            InputError: the mask's shape or dtype does not fit the game.
            BudgetError: more distinct inputs than the budget allows; nothing is scored then.
            ScoreError: a value that is not finite, with the coalition that gave it.
        """
        mask = self._checked(mask)
        keys = _keys(mask)
        fresh: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._coalitions:
                fresh.setdefault(key, row)
        if fresh:
            self._evaluate(list(fresh), mask[list(fresh.values())])
        if not keys:
            return torch.zeros(0, self.n_outputs, dtype=torch.float64)
        return torch.stack([self._coalitions[key] for key in keys])

    def known(self, mask: Bool[Tensor, " F"]) -> Float[Tensor, " K"] | None:
        """v of one coalition if it was scored already, else ``None``; never scores anything."""
        return self._coalitions.get(_keys(self._checked(mask[None]))[0])

    def white_box(self) -> WhiteBox:
        """The model's inside, for gradient and internals methods.

        Raises:
            CapabilityError: the backend does not give access to it.
        """
        if self._white_box is None:
            raise CapabilityError(
                "This game has no access to gradients or hidden states: its backend only scores prompts. "
                "Use a perturbation method, or a backend whose capabilities include 'gradients' "
                "(see `apportion backends`)."
            )
        return self._white_box()

    def _checked(self, mask: Tensor) -> Bool[Tensor, "S F"]:
        if not isinstance(mask, Tensor):
            raise InputError(f"Coalitions must be a bool tensor of shape [S, {self.n_features}], not {mask!r:.80}.")
        if mask.ndim != 2 or mask.shape[1] != self.n_features or mask.dtype != torch.bool:
            raise InputError(
                f"Coalitions must be a bool tensor of shape [S, {self.n_features}]; "
                f"this one is {mask.dtype} of shape {list(mask.shape)}."
            )
        return mask.cpu()

    def _evaluate(self, keys: Sequence[bytes], mask: Bool[Tensor, "S F"]) -> None:
        rendered = [r.inputs if isinstance(r, Alternatives) else (r,) for r in self._render(mask)]
        if len(rendered) != len(keys):
            raise InputError(f"The input adapter rendered {len(rendered)} inputs for {len(keys)} coalitions.")
        new = list(dict.fromkeys(i for inputs in rendered for i in inputs if i not in self._inputs))
        self._check_budget(len(new))
        if new:
            scored = self._score(new).to("cpu", torch.float64)
            self._check_finite(scored, new, rendered, mask)
            self._inputs.update(zip(new, scored, strict=True))
        for key, inputs in zip(keys, rendered, strict=True):
            values = [self._inputs[i] for i in inputs]
            self._coalitions[key] = values[0] if len(values) == 1 else torch.stack(values).mean(0)

    def _check_budget(self, new: int) -> None:
        if self.budget is not None and self.evaluations + new > self.budget:
            raise BudgetError(
                f"{self.evaluations + new} distinct evaluations are needed, and the budget is {self.budget}. "
                "Raise the budget, or choose a method that needs fewer."
            )

    def _check_finite(
        self,
        scored: Float[Tensor, "N K"],
        new: Sequence[Hashable],
        rendered: Sequence[Sequence[Hashable]],
        mask: Bool[Tensor, "S F"],
    ) -> None:
        bad = (~torch.isfinite(scored)).any(1).nonzero().flatten().tolist()
        if not bad:
            return
        culprit, value = new[bad[0]], scored[bad[0]]
        row = next(i for i, inputs in enumerate(rendered) if culprit in inputs)
        present = [n for n, on in zip(self.feature_names, mask[row].tolist(), strict=True) if on]
        raise ScoreError(
            f"The value of a coalition is not finite: {value.tolist()[0]} with the features "
            f"{{{listing(present)}}} present ({len(bad)} of {len(new)} inputs of this call). Check the model's "
            "weights and dtype (half precision overflows), or choose another target."
        )


def _keys(mask: Bool[Tensor, "S F"]) -> list[bytes]:
    packed = np.packbits(mask.numpy(), axis=1)
    return [row.tobytes() for row in packed]

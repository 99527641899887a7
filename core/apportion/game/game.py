"""The game: a value for every coalition of features. Each distinct model input is scored once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.errors import BudgetError, CapabilityError, InputError, ScoreError, counted, listing
from apportion.functions import failures_of, wrong_answer
from apportion.game.possible import adding_up
from apportion.protocols.inputs import Alternatives

if TYPE_CHECKING:
    from apportion.game.token_view import Charge, TokenView
    from apportion.protocols.features import Level
    from apportion.protocols.inside import Inside

__all__ = ["Game", "Memory", "Score"]

Render = Callable[[Bool[Tensor, "S F"]], Sequence[Hashable]]
Score = Callable[[Sequence[Any]], Float[Tensor, "N K"]]


@dataclass(frozen=True, slots=True)
class Memory:
    """Rendered coalitions and scored inputs; games that continue from one another share it.

    Attributes:
        rendered: the inputs of each coalition, whose values are averaged.
        scored: the values of each input.
        settled: the value of an output that some features cannot affect, by its number and the others' coalition.
    """

    rendered: dict[bytes, tuple[Hashable, ...]] = field(default_factory=dict)
    scored: dict[Hashable, Float[Tensor, " K"]] = field(default_factory=dict)
    settled: dict[tuple[int, bytes], float] = field(default_factory=dict)


class Game:
    """The value function v that methods query; ``v(S)`` has K outputs, the whole target and each token.

    Coalitions that were evaluated before come from memory, and coalitions that render to the same input are scored
    once. ``evaluations`` counts the distinct inputs that were queried in this game, including those already in memory
    from another game, and those that the runs before had ``spent``. ``scored`` counts only inputs that were not in
    memory.

    Args:
        feature_names: one name per feature, for error messages.
        n_outputs: K.
        render: maps coalitions to inputs; the values of an ``Alternatives`` are averaged with equal weights.
        score: maps distinct inputs to values.
        budget: maximum number of distinct inputs to query; ``None`` for no limit.
        levels: coarser groupings of the features, the coarsest first.
        tokens: returns the prompt as tokens, if there is a prompt; its argument counts evaluations.
        inside: returns access to the model's internals, if the session allows it; its argument counts evaluations.
        memory: memory of games with the same model, prompt and target; a new one if ``None``.
        spent: inputs queried by the runs that this one continues; they count as evaluations of this game.
        possible: which features can affect each output, ``Bool[F, K]``; ``None`` if all can. Where one cannot, the
            output's value is exactly the same with and without it.

    Attributes:
        excess: number of inputs by which the last query that was refused exceeded the budget; 0 if none was.
    """

    def __init__(
        self,
        feature_names: Sequence[str],
        n_outputs: int,
        render: Render,
        score: Score,
        *,
        budget: int | None = None,
        levels: Sequence[Level] = (),
        tokens: Callable[[Charge], TokenView] | None = None,
        inside: Callable[[Charge], Inside] | None = None,
        memory: Memory | None = None,
        spent: Iterable[Hashable] = (),
        possible: Bool[Tensor, "F K"] | None = None,
    ) -> None:
        self.feature_names = tuple(feature_names)
        self.n_features = len(self.feature_names)
        self.n_outputs = n_outputs
        everything = torch.ones(self.n_features, n_outputs, dtype=torch.bool)
        self.possible = everything if possible is None else possible
        self.budget = budget
        self._render = render
        self._score = score
        self.levels = tuple(levels)
        self._tokens = tokens
        self._inside = inside
        self._extra_evaluations = 0
        self._memory = memory or Memory()
        self._asked: set[Hashable] = set(spent)
        self.scored = 0
        self.excess = 0

    @classmethod
    def from_function(
        cls,
        function: Callable[[Bool[Tensor, "S F"]], Tensor],
        n_features: int,
        *,
        n_outputs: int = 1,
        budget: int | None = None,
    ) -> Game:
        """Make a game without a model, for tests and teaching.

        Args:
            function: maps coalitions ``Bool[S, F]`` to values ``Float[S]`` or ``Float[S, K]``.
            n_features: F.
            n_outputs: K.
            budget: maximum number of distinct coalitions to evaluate; ``None`` for no limit.
        """

        def score(rows: Sequence[Any]) -> Float[Tensor, "N K"]:
            mask = torch.tensor(rows, dtype=torch.bool).reshape(len(rows), n_features)
            with failures_of(function, "function", lambda: f"coalitions of shape {list(mask.shape)}"):
                values: object = function(mask)
            wanted = f"a real tensor of shape {[len(rows), n_outputs]}"
            if not isinstance(values, Tensor) or values.is_complex() or values.numel() != len(rows) * n_outputs:
                raise wrong_answer(function, "function", wanted, values)
            return values.double().reshape(len(rows), n_outputs)

        def render(mask: Bool[Tensor, "S F"]) -> Sequence[Hashable]:
            return [tuple(row) for row in mask.tolist()]

        return cls([str(i) for i in range(n_features)], n_outputs, render, score, budget=budget)

    @property
    def evaluations(self) -> int:
        """Number of distinct inputs queried so far, plus evaluations through ``tokens()`` and ``inside()``."""
        return len(self._asked) + self._extra_evaluations

    @property
    def asked(self) -> frozenset[Hashable]:
        """The distinct inputs queried so far."""
        return frozenset(self._asked)

    @property
    def forgotten(self) -> int:
        """Number of evaluations through ``tokens()`` and ``inside()``, whose values are not kept in memory."""
        return self._extra_evaluations

    def values(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, "S K"]:
        """Evaluate v for every coalition, float64 on the CPU.

        Args:
            mask: one coalition per row; ``True`` means that the feature is present.

        Raises:
            InputError: the mask's shape or dtype does not fit the game.
            BudgetError: the coalitions need more distinct inputs than the budget allows; nothing is scored then.
            ScoreError: a value is not finite; the message names its coalition.
        """
        mask = self._checked(mask)
        keys = _keys(mask)
        if not keys:
            return torch.zeros(0, self.n_outputs, dtype=torch.float64)
        first: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            first.setdefault(key, row)
        self._render_new(first, mask)
        self._score_new(first, mask)
        return self._settled(mask, torch.stack([self._value(key) for key in keys]))

    def known(self, mask: Bool[Tensor, " F"]) -> Float[Tensor, " K"] | None:
        """Return v of one coalition if it has already been scored, else ``None``; never scores anything."""
        checked = self._checked(mask[None])
        (key,) = _keys(checked)
        inputs = self._memory.rendered.get(key, (None,))
        if not all(i in self._memory.scored for i in inputs):
            return None
        return self._settled(checked, self._value(key)[None].clone())[0]

    def inside(self) -> Inside:
        """Access to the model's gradients and internals, for white-box methods; their evaluations count in this game.

        Raises:
            CapabilityError: the backend does not provide access, or the target function has no gradient.
        """
        if self._inside is None:
            raise CapabilityError(
                "This game has no access to gradients or hidden states: its backend only scores prompts. "
                "Use a perturbation method, or a backend whose capabilities include 'gradients' "
                "(see `apportion backends`)."
            )
        return self._inside(self._charge)

    def tokens(self) -> TokenView:
        """The prompt as tokens, for methods that replace tokens; their evaluations count in this game.

        Raises:
            CapabilityError: this game has no prompt, or the feature of its tokens cannot be determined.
        """
        if self._tokens is None:
            raise CapabilityError("This game has no prompt whose tokens can be replaced; evaluate coalitions.")
        return self._tokens(self._charge)

    def _charge(self, evaluations: int) -> None:
        self._check_budget(evaluations)
        self._extra_evaluations += evaluations

    def _checked(self, mask: Tensor) -> Bool[Tensor, "S F"]:
        if not isinstance(mask, Tensor):
            raise InputError(f"Coalitions must be a bool tensor of shape [S, {self.n_features}], not {mask!r:.80}.")
        if mask.ndim != 2 or mask.shape[1] != self.n_features or mask.dtype != torch.bool:
            raise InputError(
                f"Coalitions must be a bool tensor of shape [S, {self.n_features}]; "
                f"this one is {mask.dtype} of shape {list(mask.shape)}."
            )
        return mask.cpu()

    def _value(self, key: bytes) -> Float[Tensor, " K"]:
        values = [self._memory.scored[i] for i in self._memory.rendered[key]]
        return values[0] if len(values) == 1 else torch.stack(values).mean(0)

    def _settled(self, mask: Bool[Tensor, "S F"], values: Float[Tensor, "S K"]) -> Float[Tensor, "S K"]:
        """The values, where outputs that a feature cannot affect have the value that they had first.

        Batches round differently, and methods take differences. If the values of the tokens add up to that of the
        whole target, they still do.
        """
        limited, known = (~self.possible.all(0)).nonzero().flatten().tolist(), self._memory.settled
        if not limited:
            return values
        whole = adding_up(values)
        for k in limited:
            found = zip(_keys(mask & self.possible[:, k]), values[:, k].tolist(), strict=True)
            settled = [known.setdefault((k, key), value) for key, value in found]
            values[:, k] = torch.tensor(settled, dtype=torch.float64)
        values[whole, 0] = values[whole, 1:].sum(1)
        return values

    def _render_new(self, first: Mapping[bytes, int], mask: Bool[Tensor, "S F"]) -> None:
        """Render coalitions that are not in memory; ``first`` maps each to the first row that has it."""
        new = [key for key in first if key not in self._memory.rendered]
        if not new:
            return
        rendered = self._render(mask[[first[key] for key in new]])
        if len(rendered) != len(new):
            raise InputError(
                f"The input adapter rendered {counted(len(rendered), 'input')} for {counted(len(new), 'coalition')}."
            )
        for key, item in zip(new, rendered, strict=True):
            self._memory.rendered[key] = item.inputs if isinstance(item, Alternatives) else (item,)

    def _score_new(self, first: Mapping[bytes, int], mask: Bool[Tensor, "S F"]) -> None:
        """Score the inputs of these coalitions that are not in memory."""
        asked = dict.fromkeys(i for key in first for i in self._memory.rendered[key] if i not in self._asked)
        self._check_budget(len(asked))
        new = [i for i in asked if i not in self._memory.scored]
        if new:
            scored = self._score(new).to("cpu", torch.float64)
            self._check_finite(scored, new, first, mask)
            self._memory.scored.update(zip(new, scored, strict=True))
            self.scored += len(new)
        self._asked.update(asked)

    def _check_budget(self, new: int) -> None:
        if self.budget is not None and self.evaluations + new > self.budget:
            self.excess = self.evaluations + new - self.budget
            raise BudgetError(
                f"The method needs {counted(self.evaluations + new, 'distinct evaluation')}, but the budget is "
                f"{self.budget}. "
                "Raise the budget, or choose a method that needs fewer."
            )

    def _check_finite(
        self,
        scored: Float[Tensor, "N K"],
        new: Sequence[Hashable],
        first: Mapping[bytes, int],
        mask: Bool[Tensor, "S F"],
    ) -> None:
        bad = (~torch.isfinite(scored)).any(1).nonzero().flatten().tolist()
        if not bad:
            return
        culprit, value = new[bad[0]], scored[bad[0]]
        row = next(row for key, row in first.items() if culprit in self._memory.rendered[key])
        present = [n for n, on in zip(self.feature_names, mask[row].tolist(), strict=True) if on]
        raise ScoreError(
            f"The value of a coalition is not finite: {value.tolist()[0]} with the features "
            f"{{{listing(present)}}} present ({len(bad)} of {counted(len(new), 'input')} of this call). Check the "
            "model's weights and dtype (half precision overflows), or choose another target."
        )


def _keys(mask: Bool[Tensor, "S F"]) -> list[bytes]:
    packed = np.packbits(mask.numpy(), axis=1)
    return [row.tobytes() for row in packed]

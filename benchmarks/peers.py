"""The Shapley estimators of shap and Captum, run on a game that looks up its values.

A peer's effort is set in its own unit (samples, permutations). For each budget, it gets the largest setting whose
*distinct* coalitions fit the budget. This favours peers that evaluate a coalition more than once; both counts are kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from real_games import TableGame
from torch import Tensor

__all__ = ["PEERS", "Answer", "Asked"]

MOST_CALLS = 4
"""Maximum number of calls, as a multiple of the budget."""


@dataclass(frozen=True)
class Answer:
    """The result of an estimator.

    Attributes:
        values: Shapley values.
        distinct: number of distinct coalitions that it evaluated.
        calls: number of rows that it evaluated, including repeats.
    """

    values: Float[np.ndarray, " F"]
    distinct: int
    calls: int


class Asked:
    """A table game as the functions that peers call; records the coalitions in order."""

    def __init__(self, game: TableGame) -> None:
        self._game = game
        self._bits = 2 ** np.arange(game.n)
        self.rows: list[int] = []

    def array(self, data: Float[np.ndarray, "S F"]) -> Float[np.ndarray, " S"]:
        """Function for shap; entries are 1 where a feature is present."""
        numbers = (np.asarray(data) > 0.5) @ self._bits
        self.rows += numbers.tolist()
        return self._game.table[numbers]

    def tensor(self, data: Float[Tensor, "S F"]) -> Float[Tensor, " S"]:
        """Function for Captum."""
        return torch.from_numpy(self.array(data.numpy()))

    def answer(self, values: Float[np.ndarray, " F"]) -> Answer:
        """Combine values with the number of evaluations so far."""
        return Answer(np.asarray(values, dtype=np.float64).reshape(-1), len(set(self.rows)), len(self.rows))

    def calls_within(self, budget: int) -> int:
        """Number of rows evaluated before the number of distinct ones exceeds ``budget``."""
        seen: set[int] = set()
        for count, row in enumerate(self.rows):
            seen.add(row)
            if len(seen) > budget:
                return count
        return len(self.rows)


Peer = Callable[[TableGame, Sequence[int], int], dict[int, Answer]]
"""From a game, budgets and a seed to an answer for each budget that the peer can meet."""


def shap_permutation(game: TableGame, budgets: Sequence[int], seed: int) -> dict[int, Answer]:
    """shap.PermutationExplainer, with as many pairs of an order and its reverse as fit the budget."""
    import shap

    def run(pairs: int) -> Answer:
        asked = Asked(game)
        explainer = shap.PermutationExplainer(asked.array, np.zeros((1, game.n)), seed=seed)
        found = explainer(np.ones((1, game.n)), max_evals=pairs * (2 * game.n + 1), silent=True)
        return asked.answer(found.values)

    return _largest(run, budgets)


def shap_kernel(game: TableGame, budgets: Sequence[int], seed: int) -> dict[int, Answer]:
    """shap.KernelExplainer without its feature selection, which only adds error here for 10 features or more.

    The empty and the full coalition are evaluated in addition to ``nsamples``.
    """
    return _shap_kernel(game, budgets, seed, False)


def shap_kernel_selecting(game: TableGame, budgets: Sequence[int], seed: int) -> dict[int, Answer]:
    """shap.KernelExplainer with its defaults, which give values for at most ten features."""
    return _shap_kernel(game, budgets, seed, "num_features(10)")


def _shap_kernel(game: TableGame, budgets: Sequence[int], seed: int, l1_reg: str | bool) -> dict[int, Answer]:
    import shap

    found = {}
    for budget in budgets:
        asked = Asked(game)
        explainer = shap.KernelExplainer(asked.array, np.zeros((1, game.n)))
        np.random.seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a singular regression at a small budget also counts as the peer's answer
            values = explainer.shap_values(np.ones((1, game.n)), nsamples=budget - 2, l1_reg=l1_reg, silent=True)
        found[budget] = asked.answer(values)
    return found


def captum_kernel(game: TableGame, budgets: Sequence[int], seed: int) -> dict[int, Answer]:
    """captum.attr.KernelShap; its first two samples are the full and the empty coalition."""
    from captum.attr import KernelShap

    return _captum(KernelShap, game, budgets, seed, first=0, calls_each=1)


def captum_sampling(game: TableGame, budgets: Sequence[int], seed: int) -> dict[int, Answer]:
    """captum.attr.ShapleyValueSampling: single orders, after one call for the empty coalition."""
    from captum.attr import ShapleyValueSampling

    return _captum(ShapleyValueSampling, game, budgets, seed, first=1, calls_each=game.n)


def _captum(
    method: Any, game: TableGame, budgets: Sequence[int], seed: int, *, first: int, calls_each: int
) -> dict[int, Answer]:
    """Record a long run, then run with as many samples as fit each budget."""

    def run(samples: int) -> tuple[Asked, Answer]:
        asked = Asked(game)
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = method(asked.tensor).attribute(
                torch.ones(1, game.n, dtype=torch.float64),
                baselines=torch.zeros(1, game.n, dtype=torch.float64),
                n_samples=samples,
                perturbations_per_eval=calls_each,
            )
        return asked, asked.answer(values.numpy())

    longest, _ = run(MOST_CALLS * max(budgets) // calls_each)
    found = {}
    for budget in budgets:
        samples = (longest.calls_within(budget) - first) // calls_each
        if samples > 0:
            _, found[budget] = run(samples)
            assert found[budget].distinct <= budget
    return found


def _largest(run: Callable[[int], Answer], budgets: Sequence[int]) -> dict[int, Answer]:
    """For each budget, the answer of the largest setting (counted from 1) that fits it."""
    found: dict[int, Answer] = {}
    setting, answer = 1, run(1)
    for budget in sorted(budgets):
        while answer.distinct <= budget and answer.calls <= MOST_CALLS * budget:
            found[budget] = answer
            setting += 1
            answer = run(setting)
        if budget not in found and found:
            found[budget] = found[max(found)]
    return found


PEERS: dict[str, Peer] = {
    "shap PermutationExplainer": shap_permutation,
    "shap KernelExplainer": shap_kernel,
    "shap KernelExplainer, 10 features": shap_kernel_selecting,
    "Captum KernelShap": captum_kernel,
    "Captum ShapleyValueSampling": captum_sampling,
}

"""The game: every distinct input is scored once, budgets hold, and faults name their coalition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import apportion as ap


class Counting:
    """A value function that remembers what it was asked."""

    def __init__(self) -> None:
        self.rows: list[tuple[bool, ...]] = []

    def __call__(self, mask: Tensor) -> Tensor:
        self.rows += [tuple(row) for row in mask.tolist()]
        return mask.double().sum(1)


def masks(*rows: str) -> Tensor:
    return torch.tensor([[c == "1" for c in row] for row in rows])


def test_nothing_is_scored_twice_and_order_is_kept() -> None:
    function = Counting()
    game = ap.Game.from_function(function, 3)
    asked = masks("110", "000", "110", "111")
    assert game.values(asked).flatten().tolist() == [2, 0, 2, 3]
    assert game.evaluations == 3
    assert game.values(masks("111", "100", "000")).flatten().tolist() == [3, 1, 0]
    assert game.evaluations == 4
    assert len(function.rows) == len(set(function.rows)) == 4
    assert game.values(masks("111")[:0]).shape == (0, 1)
    assert game.known(masks("010")[0]) is None
    assert game.known(masks("111")[0]).tolist() == [3]
    assert game.values(asked).dtype == torch.float64


def test_coalitions_that_read_the_same_are_scored_once_and_alternatives_are_averaged() -> None:
    scored: list[object] = []

    def render(mask: Tensor) -> list[object]:
        # Feature 1 has no effect on the text; feature 0 has two alternatives when absent.
        return ["full" if row[0] else ap.Alternatives(("a", "b")) for row in mask.tolist()]

    def score(inputs: list[str]) -> Tensor:
        scored.extend(inputs)
        return torch.tensor([{"full": 1.0, "a": 2.0, "b": 6.0}[i] for i in inputs], dtype=torch.float64)[:, None]

    game = ap.Game(["x", "y"], 1, render, score)
    assert game.values(masks("10", "11", "00", "01")).flatten().tolist() == [1, 1, 4, 4]
    assert scored == ["full", "a", "b"]
    assert game.evaluations == 3


def test_functions_that_are_no_games_are_refused() -> None:
    def fails(mask: Tensor) -> Tensor:
        raise KeyError("a")

    for function, message in (
        (fails, r"'fails' given as function failed on coalitions of shape \[1, 3\]: KeyError: 'a'"),
        (lambda mask: 3.0, r"given as function must return a real tensor of shape \[1, 1\], not 3.0"),
        (lambda mask: mask.double(), "must return a real tensor of shape"),
        (lambda mask: mask.sum(1) * 1j, "must return a real tensor of shape"),
    ):
        with pytest.raises(ap.InputError, match=message):
            ap.Game.from_function(function, 3).values(masks("110"))


def test_the_budget_holds_before_anything_is_scored() -> None:
    function = Counting()
    game = ap.Game.from_function(function, 3, budget=3)
    game.values(masks("000", "111"))
    with pytest.raises(ap.BudgetError, match="needs 4 distinct evaluations, but the budget is 3"):
        game.values(masks("001", "010"))
    assert len(function.rows) == 2
    game.values(masks("000", "001"))


@pytest.mark.parametrize(
    "mask", [torch.ones(3, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool), torch.ones(1, 3)]
)
def test_masks_of_another_shape_or_dtype_are_refused(mask: Tensor) -> None:
    with pytest.raises(ap.InputError, match=r"bool tensor of shape \[S, 3\]"):
        ap.Game.from_function(Counting(), 3).values(mask)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_name_their_coalition(value: float) -> None:
    def function(mask: Tensor) -> Tensor:
        return torch.where(mask.sum(1) == 2, value, 1.0)

    game = ap.Game.from_function(function, 3)
    with pytest.raises(ap.ScoreError, match=r"features \{0, 2\} present \(1 of 2 inputs"):
        game.values(masks("100", "101"))


def test_the_inside_says_what_is_missing() -> None:
    with pytest.raises(ap.CapabilityError, match="only scores prompts.*apportion backends"):
        ap.Game.from_function(Counting(), 3).inside()

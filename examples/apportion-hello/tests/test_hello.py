"""Everything in this plugin satisfies apportion's contracts: subclass one, provide a fixture, and get its checks."""

from __future__ import annotations

import pytest

import apportion as ap
import apportion_hello
from apportion.testing import (
    InputContract,
    MethodContract,
    SamplerContract,
    VisualizerContract,
    known_games,
    tiny_explainer,
)
from apportion_hello import Greeting, Halves, Hello, Lines


class TestHalves(SamplerContract):
    @pytest.fixture
    def sampler(self) -> Halves:
        return Halves()


class TestHello(MethodContract):
    options = {"sampler": Halves()}
    promises_errors = True

    @pytest.fixture
    def method(self) -> Hello:
        return Hello()


class TestLines(InputContract):
    plugins = (apportion_hello,)

    @pytest.fixture
    def prompt(self) -> Lines:
        return Lines("one\ntwo\n\nthree")

    @pytest.fixture
    def full_text(self) -> str:
        return "one\ntwo\n\nthree"

    def of_text(self, text: str) -> tuple[Lines, str]:
        return Lines(text), text


class TestGreeting(VisualizerContract):
    @pytest.fixture
    def visualizer(self) -> Greeting:
        return Greeting()


def test_everything_together_by_name() -> None:
    with tiny_explainer(plugins=[apportion_hello]) as explainer:
        result = explainer.attribute(Lines("one\ntwo\nthree"), " four", method="hello", budget=40, seed=3)
        assert result.estimand == "Banzhaf value"
        assert result.feature_names == ("line 1", "line 2", "line 3")
        assert result.provenance.options == {"sampler": "halves"}
        assert "line 2" in str(result.plot("greeting", width=10))
        other = explainer.attribute(Lines("one\ntwo"), " four", method="hello", sampler="permutation", budget=40)
        assert other.provenance.options == {"sampler": "permutation"}


def test_no_lines_are_refused() -> None:
    with pytest.raises(ap.InputError, match="at least one line"):
        Lines("\n")


def test_known_games_can_be_asked_directly() -> None:
    import torch

    for known in known_games(5):
        game = ap.Game.from_function(known, known.n)
        estimate = Hello().run(game, budget=64, rng=torch.Generator().manual_seed(0), sampler=Halves())
        assert estimate.values.shape == (known.n, 1)

"""Fixtures for plugin tests; enable them with ``pytest_plugins = ["apportion.testing.fixtures"]`` in conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apportion.explainer import Explainer
from apportion.protocols.model import ModelSpec
from apportion.results.attribution import Attribution
from apportion.testing import explainers, tiny
from apportion.testing.games import KnownGame, known_games
from apportion.testing.results import sample_results

__all__ = ["known_game", "sample_result", "tiny_explainer", "tiny_spec"]


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    """A tiny random Llama in float64 and its byte-level tokenizer."""
    return tiny.spec()


@pytest.fixture
def tiny_explainer() -> Iterator[Explainer]:
    """An explainer of that model with the installed plugins; no progress bar."""
    with explainers.tiny_explainer() as explainer:
        yield explainer


@pytest.fixture(params=known_games(6), ids=lambda game: game.name)
def known_game(request: pytest.FixtureRequest) -> KnownGame:
    """A game with known answers; a test that uses this fixture runs once per game."""
    found: KnownGame = request.param
    return found


@pytest.fixture(params=sample_results())
def sample_result(request: pytest.FixtureRequest) -> Attribution:
    """A result made without a model; a test that uses this fixture runs once per kind of result."""
    return sample_results()[request.param]

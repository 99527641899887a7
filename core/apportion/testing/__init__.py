"""Contracts for testing extensions: subclass one, provide a fixture, and get every check.

Nothing here is registered with pytest automatically. The contracts are classes; ``apportion.testing.games``, ``.tiny``
and ``.reference`` have plain functions; and ``pytest_plugins = ["apportion.testing.fixtures"]`` enables the fixtures.
The contracts need pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apportion.testing.backend import BackendContract
    from apportion.testing.echo import EchoBackend
    from apportion.testing.explainers import tiny_explainer
    from apportion.testing.fill import FillContract
    from apportion.testing.games import KnownGame, known_games
    from apportion.testing.input import InputContract
    from apportion.testing.method import MethodContract
    from apportion.testing.metric import MetricContract
    from apportion.testing.results import sample_results
    from apportion.testing.sampler import SamplerContract
    from apportion.testing.segmenter import SegmenterContract
    from apportion.testing.target import TargetContract
    from apportion.testing.visualizer import VisualizerContract
    from apportion.testing.white_box import GradientTimesInput
    from apportion.testing.white_box_method import WhiteBoxMethodContract

_HOME_OF = {
    "BackendContract": "backend",
    "EchoBackend": "echo",
    "FillContract": "fill",
    "GradientTimesInput": "white_box",
    "InputContract": "input",
    "KnownGame": "games",
    "MethodContract": "method",
    "MetricContract": "metric",
    "SamplerContract": "sampler",
    "SegmenterContract": "segmenter",
    "TargetContract": "target",
    "VisualizerContract": "visualizer",
    "WhiteBoxMethodContract": "white_box_method",
    "known_games": "games",
    "sample_results": "results",
    "tiny_explainer": "explainers",
}

__all__ = [
    "BackendContract", "EchoBackend", "FillContract", "GradientTimesInput", "InputContract", "KnownGame",
    "MethodContract", "MetricContract", "SamplerContract", "SegmenterContract", "TargetContract", "VisualizerContract",
    "WhiteBoxMethodContract", "known_games", "sample_results", "tiny_explainer",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'apportion.testing' has no attribute {name!r}")
    if not __debug__ and name.endswith("Contract"):
        raise ImportError("The contracts are assertions, which `python -O` removes; run pytest without -O.")
    try:
        return getattr(importlib.import_module(f"apportion.testing.{_HOME_OF[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name == "pytest":
            raise ImportError("The contracts need pytest: pip install pytest") from error
        raise

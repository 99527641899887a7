"""apportion: which parts of a prompt made a language model say what it said.

Names are imported when they are first used, so that ``import apportion`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from apportion._version import __version__

if TYPE_CHECKING:
    from apportion.attribution import Attribution
    from apportion.backend import (
        Available,
        Backend,
        BackendInfo,
        Capability,
        Layout,
        ScoringBatch,
        Session,
        SessionInfo,
        Unavailable,
        WhiteBox,
    )
    from apportion.cost import Cost
    from apportion.errors import (
        ApportionError,
        BackendError,
        BatchTooLargeError,
        BudgetError,
        CapabilityError,
        InputError,
        ModelError,
        PluginError,
        ResultError,
        ScoreError,
        UnknownNameError,
    )
    from apportion.evaluation import Comparison, Evaluation, compare
    from apportion.explainer import Explainer
    from apportion.features import Feature, Level, Segment
    from apportion.game import Game
    from apportion.hookspecs import Settings, hookimpl
    from apportion.inputs import AdaptContext, Alternatives, InputAdapter, ModelInput
    from apportion.methods import Coalitions, Estimate, Method, Sampler
    from apportion.metrics import Measurement, Metric
    from apportion.models import LoadedModel
    from apportion.progress import ProgressEvent
    from apportion.prompts import Chat, Documents, Template, Text
    from apportion.provenance import Provenance
    from apportion.registry import Register
    from apportion.request import Request
    from apportion.results import load_results
    from apportion.targets import Needs, Scores, Target, TargetFunction
    from apportion.visualizers import Visualizer

_HOMES = {
    "attribution": ("Attribution",),
    "backend": (
        "Available", "Backend", "BackendInfo", "Capability", "Layout", "ScoringBatch", "Session", "SessionInfo",
        "Unavailable", "WhiteBox",
    ),
    "cost": ("Cost",),
    "errors": (
        "ApportionError", "BackendError", "BatchTooLargeError", "BudgetError", "CapabilityError", "InputError",
        "ModelError", "PluginError", "ResultError", "ScoreError", "UnknownNameError",
    ),
    "evaluation": ("Comparison", "Evaluation", "compare"),
    "explainer": ("Explainer",),
    "features": ("Feature", "Level", "Segment"),
    "game": ("Game",),
    "hookspecs": ("Settings", "hookimpl"),
    "inputs": ("AdaptContext", "Alternatives", "InputAdapter", "ModelInput"),
    "methods": ("Coalitions", "Estimate", "Method", "Sampler"),
    "metrics": ("Measurement", "Metric"),
    "models": ("LoadedModel",),
    "progress": ("ProgressEvent",),
    "prompts": ("Chat", "Documents", "Template", "Text"),
    "provenance": ("Provenance",),
    "registry": ("Register",),
    "request": ("Request",),
    "results": ("load_results",),
    "targets": ("Needs", "Scores", "Target", "TargetFunction"),
    "visualizers": ("Visualizer",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdaptContext", "Alternatives", "ApportionError", "Attribution", "Available", "Backend", "BackendError",
    "BackendInfo", "BatchTooLargeError", "BudgetError", "Capability", "CapabilityError", "Chat", "Coalitions",
    "Comparison", "Cost", "Documents", "Estimate", "Evaluation", "Explainer", "Feature", "Game", "InputAdapter",
    "InputError", "Layout", "Level", "LoadedModel", "Measurement", "Method", "Metric", "ModelError", "ModelInput",
    "Needs", "PluginError", "ProgressEvent", "Provenance", "Register", "Request", "ResultError", "Sampler",
    "ScoreError", "Scores", "ScoringBatch", "Segment", "Session", "SessionInfo", "Settings", "Target",
    "TargetFunction", "Template", "Text", "Unavailable", "UnknownNameError", "Visualizer", "WhiteBox",
    "__version__", "compare", "hookimpl", "load_results",
]  # fmt: skip


def __getattr__(name: str) -> object:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'apportion' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"apportion.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

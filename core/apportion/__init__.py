"""apportion: find out which parts of a prompt made a language model say what it said.

Names are imported on first use, so that ``import apportion`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from apportion._version import __version__

if TYPE_CHECKING:
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
        ServerError,
        UnknownNameError,
    )
    from apportion.explainer import Explainer
    from apportion.game.game import Game
    from apportion.hooks.hookspecs import Settings, hookimpl
    from apportion.hooks.registry import Register
    from apportion.models.export import export
    from apportion.prompts.chat import Chat
    from apportion.prompts.documents import Documents
    from apportion.prompts.image_text import ImageText
    from apportion.prompts.template import Template
    from apportion.prompts.text import Text
    from apportion.protocols.backend import (
        Available,
        Backend,
        BackendInfo,
        Capability,
        GenerateSession,
        Layout,
        LogitsSession,
        Session,
        SessionInfo,
        TextSession,
        Unavailable,
    )
    from apportion.protocols.batch import PaddedBatch, ScoringBatch
    from apportion.protocols.executor import Executor
    from apportion.protocols.exports import Export, ExportBackend
    from apportion.protocols.features import Feature, Level, Segment
    from apportion.protocols.inputs import Alternatives, InputAdapter
    from apportion.protocols.inside import (
        Edits,
        EmbeddedBatch,
        Gradients,
        Inside,
        InsideSession,
        ModuleGradients,
        Trace,
    )
    from apportion.protocols.likeness import Likeness
    from apportion.protocols.methods import Coalitions, Estimate, Method, Sampler
    from apportion.protocols.metrics import Measurement, Metric
    from apportion.protocols.model import ModelSpec
    from apportion.protocols.pictures import Fill, Picture, Region, Segmenter
    from apportion.protocols.progress import ProgressEvent
    from apportion.protocols.read import Read
    from apportion.protocols.request import Request
    from apportion.protocols.row import Media, ModelInput, Row
    from apportion.protocols.targets import Needs, Scores, Target, TargetFunction
    from apportion.protocols.visualizers import Visualizer
    from apportion.rendering.context import AdaptContext
    from apportion.results.attribution import Attribution
    from apportion.results.comparison import ResultComparison
    from apportion.results.context_reliance import ContextReliance, ContextualCue, SensitiveToken
    from apportion.results.evaluation import Comparison, Evaluation, compare
    from apportion.results.html_view import HtmlView
    from apportion.results.provenance import Provenance
    from apportion.results.run_folder import load_results
    from apportion.runs.cost import Cost
    from apportion.scoring.text_target import TextValue
    from apportion.workers.ray import RayExecutor

_HOMES = {
    "results.attribution": ("Attribution",),
    "protocols.backend": (
        "Available", "Backend", "BackendInfo", "Capability", "GenerateSession", "Layout", "LogitsSession", "Session",
        "SessionInfo", "TextSession", "Unavailable",
    ),
    "rendering.context": ("AdaptContext",),
    "runs.cost": ("Cost",),
    "errors": (
        "ApportionError", "BackendError", "BatchTooLargeError", "BudgetError", "CapabilityError", "InputError",
        "ModelError", "PluginError", "ResultError", "ScoreError", "ServerError", "UnknownNameError",
    ),
    "results.comparison": ("ResultComparison",),
    "results.context_reliance": ("ContextReliance", "ContextualCue", "SensitiveToken"),
    "results.evaluation": ("Comparison", "Evaluation", "compare"),
    "explainer": ("Explainer",),
    "protocols.executor": ("Executor",),
    "workers.ray": ("RayExecutor",),
    "results.html_view": ("HtmlView",),
    "protocols.features": ("Feature", "Level", "Segment"),
    "game.game": ("Game",),
    "hooks.hookspecs": ("Settings", "hookimpl"),
    "protocols.inputs": ("Alternatives", "InputAdapter"),
    "protocols.likeness": ("Likeness",),
    "protocols.methods": ("Coalitions", "Estimate", "Method", "Sampler"),
    "protocols.metrics": ("Measurement", "Metric"),
    "protocols.model": ("ModelSpec",),
    "protocols.batch": ("PaddedBatch", "ScoringBatch"),
    "protocols.row": ("Media", "ModelInput", "Row"),
    "protocols.inside": (
        "Edits",
        "EmbeddedBatch",
        "Gradients",
        "Inside",
        "InsideSession",
        "ModuleGradients",
        "Trace",
    ),
    "protocols.pictures": ("Fill", "Picture", "Region", "Segmenter"),
    "protocols.progress": ("ProgressEvent",),
    "prompts.chat": ("Chat",),
    "prompts.documents": ("Documents",),
    "prompts.image_text": ("ImageText",),
    "prompts.template": ("Template",),
    "prompts.text": ("Text",),
    "results.provenance": ("Provenance",),
    "hooks.registry": ("Register",),
    "models.export": ("export",),
    "protocols.exports": ("Export", "ExportBackend"),
    "protocols.read": ("Read",),
    "protocols.request": ("Request",),
    "results.run_folder": ("load_results",),
    "protocols.targets": ("Needs", "Scores", "Target", "TargetFunction"),
    "scoring.text_target": ("TextValue",),
    "protocols.visualizers": ("Visualizer",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdaptContext",
    "Alternatives",
    "ApportionError",
    "Attribution",
    "Available",
    "Backend",
    "BackendError",
    "BackendInfo",
    "BatchTooLargeError",
    "BudgetError",
    "Capability",
    "CapabilityError",
    "Chat",
    "Coalitions",
    "Comparison",
    "ContextReliance",
    "ContextualCue",
    "Cost",
    "Documents",
    "Edits",
    "EmbeddedBatch",
    "Estimate",
    "Evaluation",
    "Executor",
    "Explainer",
    "Export",
    "ExportBackend",
    "Feature",
    "Fill",
    "Game",
    "GenerateSession",
    "Gradients",
    "HtmlView",
    "ImageText",
    "InputAdapter",
    "InputError",
    "Inside",
    "InsideSession",
    "Layout",
    "Level",
    "Likeness",
    "LogitsSession",
    "Measurement",
    "Media",
    "Method",
    "Metric",
    "ModelError",
    "ModelInput",
    "ModelSpec",
    "ModuleGradients",
    "Needs",
    "PaddedBatch",
    "Picture",
    "PluginError",
    "ProgressEvent",
    "Provenance",
    "RayExecutor",
    "Read",
    "Region",
    "Register",
    "Request",
    "ResultComparison",
    "ResultError",
    "Row",
    "Sampler",
    "ScoreError",
    "Scores",
    "ScoringBatch",
    "Segment",
    "Segmenter",
    "SensitiveToken",
    "ServerError",
    "Session",
    "SessionInfo",
    "Settings",
    "Target",
    "TargetFunction",
    "Template",
    "Text",
    "TextSession",
    "TextValue",
    "Trace",
    "Unavailable",
    "UnknownNameError",
    "Visualizer",
    "__version__",
    "compare",
    "export",
    "hookimpl",
    "load_results",
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

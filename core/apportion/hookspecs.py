"""The hooks: what apportion calls, when, in which order, and what ``None`` means.

Implement any of them as functions marked with ``@apportion.hookimpl`` in a module, and name the module
in the entry-point group ``apportion``. A hook may declare fewer arguments than listed here, never others.
Hooks run at most once a batch, never once a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from apportion.attribution import Attribution
    from apportion.backend import ScoringBatch, Session
    from apportion.inputs import AdaptContext, InputAdapter
    from apportion.progress import ProgressEvent
    from apportion.registry import Register
    from apportion.request import Request

__all__ = ["API_VERSION", "PROJECT", "Settings", "hookimpl", "hookspec"]

PROJECT = "apportion"
API_VERSION = 1
"""Of the hooks and protocols. A plugin may state the one it was written for: ``APPORTION_API_VERSION = 1``."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a plugin is told when it is loaded.

    Attributes:
        version: of apportion.
        api_version: of the hooks and protocols.
        cache_dir: the user's cache folder for apportion; it may not exist yet.
    """

    version: str
    api_version: int
    cache_dir: Path


@hookspec(historic=True)
def apportion_configure(settings: Settings) -> None:
    """Called once, when the plugin is loaded, before anything else.

    Returns nothing. An error here disables the plugin and is shown by ``apportion plugins list``.
    """


@hookspec
def apportion_register_inputs(register: Register) -> None:
    """Called once at loading: name the prompt types that ``apportion_adapt_input`` accepts.

    ``register(name, factory, *, summary)``; the factory is the prompt's class, or ``"module:Class"``.
    A name that another plugin has is an error that names both. Returns nothing.
    """


@hookspec
def apportion_register_samplers(register: Register) -> None:
    """Called once at loading: add samplers for regression methods (``method="…", sampler=NAME``).

    ``register(name, factory, *, summary)``; the factory returns a ``Sampler``. Returns nothing.
    """


@hookspec
def apportion_register_methods(register: Register) -> None:
    """Called once at loading: add attribution methods (``method=NAME``).

    ``register(name, factory, *, summary)``; the factory returns a ``Method``. Returns nothing.
    """


@hookspec
def apportion_register_targets(register: Register) -> None:
    """Called once at loading: add target functions (``target_fn=NAME``).

    ``register(name, factory, *, summary)``; the factory returns a ``TargetFunction``. Returns nothing.
    """


@hookspec
def apportion_register_visualizers(register: Register) -> None:
    """Called once at loading: add views of a result (``result.plot(NAME)``).

    ``register(name, factory, *, summary)``; the factory returns a ``Visualizer``. Returns nothing.
    """


@hookspec
def apportion_register_backends(register: Register) -> None:
    """Called once at loading: add backends (``Explainer(model, backend=NAME)``).

    ``register(name, factory, *, summary)``; the factory returns a ``Backend`` and must import nothing
    heavy: ``apportion backends`` calls it to ask for availability. Returns nothing.
    """


@hookspec
def apportion_register_metrics(register: Register) -> None:
    """Called once at loading: add faithfulness metrics.

    ``register(name, factory, *, summary)``. Returns nothing.
    """


@hookspec(firstresult=True)
def apportion_adapt_input(prompt: object, context: AdaptContext) -> InputAdapter | None:
    """Called once a run: turn a prompt into features and a renderer.

    Returns an ``InputAdapter``, or ``None`` for "not mine". Plugins are asked from the last loaded to the
    first, built-ins last; the first answer that is not ``None`` counts.
    """


@hookspec
def apportion_before_run(request: Request) -> None:
    """Called once a run, when everything is resolved and checked and before the model runs.

    An observer: what it returns is ignored. An error ends the run.
    """


@hookspec
def apportion_after_run(request: Request, attribution: Attribution) -> None:
    """Called once a run that succeeded, with its result.

    An observer: what it returns is ignored. An error reaches the caller.
    """


@hookspec
def apportion_on_progress(event: ProgressEvent) -> None:
    """Called at the start of scoring and after each batch; finally with the stage ``"end"``, also on errors.

    An observer: what it returns is ignored.
    """


@hookspec(firstresult=True)
def apportion_score(session: Session, batch: ScoringBatch) -> Float[Tensor, "B T"] | None:
    """Called once a batch, for target functions that need log-probabilities: score it.

    Returns log-probabilities, or ``None`` to leave it to the next plugin; the session itself answers last.
    Wrappers (``@hookimpl(wrapper=True)``) cache, profile, log, or send batches elsewhere.
    """

"""The hooks: when apportion calls each of them, in which order, and the meaning of ``None``.

Implement any of them as functions marked with ``@apportion.hookimpl`` in a module, and name the module in the
entry-point group ``apportion``. A hook may declare fewer arguments than listed here, but no others. Hooks are called at
most once per batch, never once per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from apportion.hooks.registry import Register
    from apportion.protocols.backend import Session
    from apportion.protocols.batch import ScoringBatch
    from apportion.protocols.inputs import InputAdapter
    from apportion.protocols.progress import ProgressEvent
    from apportion.protocols.read import Read
    from apportion.protocols.request import Request
    from apportion.protocols.row import ModelInput, Row
    from apportion.rendering.context import AdaptContext

__all__ = ["API_VERSION", "PROJECT", "Settings", "hookimpl", "hookspec"]

PROJECT = "apportion"
API_VERSION = 1
"""Version of the hooks and protocols. A plugin may state its version with ``APPORTION_API_VERSION = 1``."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings passed to a plugin when it is loaded.

    Attributes:
        version: version of apportion.
        api_version: version of the hooks and protocols.
        cache_dir: the user's cache folder for apportion; it may not exist yet.
    """

    version: str
    api_version: int
    cache_dir: Path


@hookspec(historic=True)
def apportion_configure(settings: Settings) -> None:
    """Called once, when the plugin is loaded, before anything else.

    Returns nothing. An error disables the plugin, and ``apportion plugins list`` shows it.
    """


@hookspec
def apportion_register_inputs(register: Register) -> None:
    """Called once at loading: name the prompt types that ``apportion_adapt_input`` accepts.

    ``register(name, factory, *, summary)``; the factory is the prompt's class, or ``"module:Class"``. A name that is
    already taken is an error; the message names both plugins. Returns nothing.
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

    ``register(name, factory, *, summary)``; the factory returns a ``Backend`` and must not import anything slow,
    because ``apportion backends`` calls it to check availability. Returns nothing.
    """


@hookspec
def apportion_register_metrics(register: Register) -> None:
    """Called once at loading: add faithfulness metrics.

    ``register(name, factory, *, summary)``; the factory returns a ``Metric``. Returns nothing.
    """


@hookspec
def apportion_register_segmenters(register: Register) -> None:
    """Called once at loading: add segmenters of pictures (``ImageText(…, segments=NAME)``).

    ``register(name, factory, *, summary)``; the factory returns a ``Segmenter``, and its keyword-only parameters are
    the options. Returns nothing.
    """


@hookspec
def apportion_register_fills(register: Register) -> None:
    """Called once at loading: add fills of absent regions of pictures (``ImageText(…, fill=NAME)``).

    ``register(name, factory, *, summary)``; the factory returns a ``Fill``, and its keyword-only parameters are the
    options. Returns nothing.
    """


@hookspec(firstresult=True)
def apportion_adapt_input(prompt: object, context: AdaptContext) -> InputAdapter | None:
    """Called once per run: turn a prompt into features and a renderer.

    Returns an ``InputAdapter``, or ``None`` for a prompt that is not the plugin's. Plugins are called from the last
    loaded to the first, with built-ins last; the first result that is not ``None`` is used.
    """


@hookspec
def apportion_before_run(request: Request) -> None:
    """Called once per run, after everything is resolved and checked, and before any coalition is scored.

    If the user gave no target, it has been generated by then.

    An observer: its return value is ignored. An error ends the run.
    """


@hookspec
def apportion_after_run(request: Request, attribution: object) -> None:
    """Called once per successful run, with its result, an ``apportion.Attribution``.

    An observer: its return value is ignored. An error is raised to the caller.
    """


@hookspec
def apportion_on_progress(event: ProgressEvent) -> None:
    """Called before a target is generated, when scoring starts, after each batch, and at the end of the run.

    The last event has the stage ``"end"``, even after an error. It states how long the run took and, in ``error``, the
    error that ended it, if any. Runs of ``attribute_many`` take turns: ``event.request`` is the request of the run that
    the event belongs to, or ``None`` until it is resolved. Events with the stages ``"items"`` (before the first run,
    after each progress event of a run, and after each run) and ``"close"`` (at the end) are about all runs.

    An observer: its return value is ignored, and an error only causes a warning.
    """


@hookspec
def apportion_lookup(request: Request, session: Session, rows: Sequence[Row]) -> Float[Tensor, "N T"] | None:
    """Called before scoring is planned, for target functions that need log-probabilities: look up known scores.

    ``rows`` are distinct prompts, with their media, and one target: that of the run or, in other calls, its contrast,
    another spelling of either, or a part of one that is scored after other tokens than usual
    (``attribute_generated=True``). Known rows are neither planned nor scored.

    Returns log-probabilities of the target's tokens, one line per row, with NaN throughout for an unknown row; or
    ``None`` if no row is known. If several plugins know a row, the one loaded last takes precedence.
    """


@hookspec
def apportion_lookup_texts(
    request: Request, session: Session, prompts: Sequence[ModelInput], samples: Sequence[int]
) -> Sequence[Sequence[str | None]] | None:
    """Called before texts are written, for target functions that read texts: look up known ones.

    ``prompts`` are distinct, and ``samples`` are the numbers of the texts that each needs: 0, 1, …, and −1 for one that
    serves as the target. Texts of other numbers are other draws, if ``request.generation`` samples; the seed of the run
    is ``request.seed``. The target of the request may not be known yet.

    Returns the texts of each prompt, with ``None`` in place of unknown ones; or ``None`` if nothing is known.
    """


@hookspec
def apportion_text_written(request: Request, session: Session, prompt: ModelInput, sample: int, text: str) -> None:
    """Called as soon as the model has written a text after a prompt; ``sample`` is the number of the text.

    An observer: its return value is ignored. An error ends the run.
    """


@hookspec(firstresult=True)
def apportion_score(session: Session, batch: ScoringBatch, request: Request, read: Read) -> Tensor | None:
    """Called for every batch: score it.

    ``read(session, batch)`` scores the batch with a session. It returns log-probabilities, ``Float[B, T]``, if
    ``read.needs`` is ``LOG_PROBS``, and other numbers for target functions that need logits.

    Returns the same as ``read``, or ``None`` to leave the batch to the next plugin; ``read`` itself comes last.

    In ``attribute_many``, the rows of a batch may belong to several runs; ``request`` is then that of the first row,
    and the batch holds the target of each row. If a session scores several batches at once (``Layout.lanes``), calls
    come from several threads, one at a time: while ``read`` works, plugins are called with other batches. After the
    method has ended, one more row may be scored, to compare two spellings of the target.

    Wrappers (``@hookimpl(wrapper=True)``) profile, log or store scores, and return them unchanged. Other
    implementations score batches elsewhere, as in ``return read(another_session, batch)``.
    """

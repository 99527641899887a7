"""Visualizers: views of a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

__all__ = ["Visualizer"]


@runtime_checkable
class Visualizer(Protocol):
    """Renders a view of a result.

    ``render(attribution, **options)`` returns a matplotlib ``Figure``, an ``HtmlView``, a ``str`` of plain text or a
    rich renderable. Options are keyword-only parameters of ``render`` with defaults. Annotate the return type of
    ``render``: from it, ``apportion attribute --view`` knows before it loads a model whether a view is a picture (an
    annotation with ``Figure``), a text (``HtmlView`` or ``str``), or meant for the terminal.

    A visualizer may also have ``render_evaluations(evaluations)`` for the ``Evaluation`` objects of one target,
    ``render_comparison(comparison, **options)`` for a ``ResultComparison``, and ``render_context_reliance(found)`` for
    a ``ContextReliance``. ``show`` of these prints the output of the visualizer called ``"terminal"``; notebooks
    display that of the one called ``"html"``; and ``plot`` of a comparison returns that of the one that it names, with
    its options.
    """

    # As in ``Method.run``.
    @property
    def render(self) -> Callable[..., Any]:
        """``render(attribution, **options)`` returns the view, which the caller shows or saves."""
        ...

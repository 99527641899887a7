"""What a view of a result is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

__all__ = ["Visualizer"]


@runtime_checkable
class Visualizer(Protocol):
    """Makes a picture of a result.

    ``render(attribution, **options)`` returns what suits it: a matplotlib ``Figure``, an HTML ``str``, a
    rich renderable. Options are keyword-only parameters of ``render`` with defaults. Annotate what ``render``
    returns: ``apportion attribute --view`` sees from it, before a model is loaded, whether a view is a picture
    (an annotation with ``Figure``), HTML (``str``), or something for the terminal.

    A visualizer may also have ``render_evaluations(evaluations)`` for the ``Evaluation`` objects of one target;
    ``Evaluation.show`` prints what the visualizer called ``"terminal"`` makes of them.
    """

    render: Callable[..., Any]
    """``render(attribution, **options)``: the view, which the caller shows or saves."""

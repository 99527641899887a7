"""The parts of matplotlib that draw figures; the other modules import them from here.

``MPLBACKEND`` may name a backend of another environment, such as that of the notebook that started this process; then
``import matplotlib`` fails. Figures are drawn without pyplot, so they need no such backend.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def _any_backend() -> Iterator[None]:
    """Context in which matplotlib is imported; a backend that it knows still counts for pyplot itself."""
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            rcParams["backend"] = backend


with _any_backend():
    from matplotlib import font_manager, ft2font, rc_context, rcParams
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, ListedColormap, Normalize, to_rgba
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
    from matplotlib.path import Path
    from matplotlib.patheffects import Normal, withStroke
    from matplotlib.text import Annotation, Text
    from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

__all__ = [
    "Annotation",
    "Axes",
    "Colormap",
    "FancyBboxPatch",
    "Figure",
    "FigureCanvasAgg",
    "FuncFormatter",
    "ListedColormap",
    "MaxNLocator",
    "Normal",
    "Normalize",
    "Path",
    "PathPatch",
    "PercentFormatter",
    "Rectangle",
    "ScalarMappable",
    "Text",
    "font_manager",
    "ft2font",
    "rcParams",
    "rc_context",
    "to_rgba",
    "withStroke",
]

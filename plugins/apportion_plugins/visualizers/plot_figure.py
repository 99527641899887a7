"""The figure that plots return: it shows itself in notebooks, and its vector files can be published."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from apportion_plugins.visualizers.drawing import Figure, Normal, Text, rc_context, rcParams
from apportion_plugins.visualizers.fonts import embeddable

__all__ = ["PlotFigure"]

_SCREEN = 2
_EMBEDDING = ("pdf", "ps", "eps")
"""Formats that embed fonts."""
_TRUE_TYPE = 42
"""Matplotlib's number for TrueType fonts. Many publishers refuse Type 3 fonts, its default."""
_SAVING = threading.RLock()
"""Two threads that save must not restore each other's settings."""


class PlotFigure(Figure):
    """A matplotlib Figure that notebooks display without pyplot, and that saves PDF files without Type 3 fonts.

    Notebooks display a plain ``Figure`` only after ``%matplotlib inline`` or an import of pyplot, which would keep it
    in pyplot's list of open figures.
    """

    def savefig(self, fname: Any, **options: Any) -> None:
        """Save the figure, as any figure of matplotlib; PDF and PostScript files get TrueType fonts.

        A ``PdfPages`` embeds fonts when it is closed, so its fonts follow the settings of that time.

        Args:
            fname: path or binary file.
            **options: as for matplotlib's ``Figure.savefig``.
        """
        kind = _format_of(fname, options)
        if kind not in _EMBEDDING:
            super().savefig(fname, **options)
            return
        is_file = isinstance(fname, str | os.PathLike) or hasattr(fname, "write")
        fonts = rc_context({"pdf.fonttype": _TRUE_TYPE, "ps.fonttype": _TRUE_TYPE}) if is_file else nullcontext()
        with _SAVING, fonts, self._outlines(kind):
            super().savefig(fname, **options)

    @contextmanager
    def _outlines(self, kind: str) -> Iterator[None]:
        """Context in which text whose font cannot be embedded is drawn as shapes."""
        effects = {text: text.get_path_effects() for text in self.findobj(Text)}
        try:
            for text in effects:
                # Matplotlib's PostScript files lose characters beyond U+FFFF, such as many emoji.
                lost = kind != "pdf" and max(text.get_text(), default="") > "\uffff"
                if lost or not embeddable(text.get_text(), text.get_fontfamily()):
                    text.set_path_effects([Normal()])
            yield
        finally:
            for text, before in effects.items():
                text.set_path_effects(before)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """PNG for notebooks: rendered at twice the resolution, shown at the figure's size."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi * _SCREEN)
        width, height = self.get_size_inches() * self.dpi
        return buffer.getvalue(), {"width": int(width), "height": int(height)}


def _format_of(fname: Any, options: dict[str, Any]) -> str:
    """The format that matplotlib will choose."""
    suffix = Path(fname).suffix if isinstance(fname, str | os.PathLike) else ""
    return str(options.get("format") or suffix[1:] or rcParams["savefig.format"]).lower()

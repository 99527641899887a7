"""A figure laid out in inches, with measured labels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from apportion_plugins.visualizers.drawing import Axes, Figure, FigureCanvasAgg, to_rgba
from apportion_plugins.visualizers.fonts import Lettering
from apportion_plugins.visualizers.labels import ellipsis
from apportion_plugins.visualizers.palette import DARK, LIGHT, Ramp, text_on

__all__ = ["MARGIN", "NOTE", "Page", "PlotFigure"]

MARGIN = 0.18
TITLE, SUBTITLE, NOTE = 12.0, 9.0, 8.0
"""Font sizes in points."""
_LEADING = 1.45 / 72
_SCREEN = 2


class PlotFigure(Figure):
    """A matplotlib Figure that notebooks display without pyplot.

    Notebooks display a plain ``Figure`` only after ``%matplotlib inline`` or an import of pyplot, which would keep it
    in pyplot's list of open figures.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """PNG for notebooks: rendered at twice the resolution, shown at the figure's size."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi * _SCREEN)
        width, height = self.get_size_inches() * self.dpi
        return buffer.getvalue(), {"width": int(width), "height": int(height)}


class Page:
    """A figure laid out from top to bottom: header, axes placed in inches, notes.

    Args:
        lettering: fonts for all text.
    """

    def __init__(self, lettering: Lettering) -> None:
        self.figure = PlotFigure()
        # Everything is placed explicitly; a layout engine from the user's settings would move it.
        self.figure.set_layout_engine("none")
        FigureCanvasAgg(self.figure)
        self._lettering = lettering
        self._width = self._height = 0.0

    @property
    def ramp(self) -> Ramp:
        """Colours that suit the background of the user's matplotlib style."""
        *background, alpha = to_rgba(self.figure.get_facecolor())
        red, green, blue = (round(255 * part) for part in background)
        return DARK if alpha and text_on((red, green, blue)) == (255, 255, 255) else LIGHT

    def style(self, size: float) -> dict[str, Any]:
        """Keyword arguments for text: fonts that have its characters, and ``$…$`` taken literally."""
        return {"family": self._lettering.families, "size": size, "parse_math": False, "usetex": False}

    def drawable(self, text: str) -> str:
        """The text with characters that the fonts lack replaced."""
        return self._lettering.drawable(text)

    def width_of(self, texts: Sequence[str], size: float) -> float:
        """Width of the widest text in inches."""
        widest = 0.0
        for text in texts:
            drawn = self.figure.text(0, 0, text, **self.style(size))
            widest = max(widest, float(drawn.get_window_extent().width) / self.figure.dpi)
            drawn.remove()
        return widest

    def resize(self, width: float, height: float) -> None:
        """Set the size in inches."""
        self._width, self._height = width, height
        self.figure.set_size_inches(width, height)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes at a position in inches from the upper left corner."""
        bottom = self._height - top - height
        box = (left / self._width, bottom / self._height, width / self._width, height / self._height)
        return self.figure.add_axes(box)

    def lines(self, texts: Sequence[str], top: float, size: float, **style: Any) -> None:
        """Write lines of text at the left margin, from ``top`` inches downwards."""
        for i, text in enumerate(texts):
            y = 1 - (top + i * size * _LEADING) / self._height
            self.figure.text(MARGIN / self._width, y, text, va="top", ha="left", **(self.style(size) | style))

    def wrapped(self, text: str, width: float, size: float, most: int = 4) -> list[str]:
        """Wrap the text into lines of at most ``width`` inches; text beyond ``most`` lines is elided."""
        text = self.drawable(text)
        if self.width_of([text], size) <= width:
            return [text]
        lines = [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".strip(" ") if lines[-1] else word
            if lines[-1] and self.width_of([longer], size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        if len(lines) > most:
            lines = [*lines[: most - 1], lines[most - 1] + " …"]
        return [self.fitted(line, width, size) for line in lines]

    def fitted(self, text: str, width: float, size: float) -> str:
        """The text, with its middle elided if it is wider than ``width`` inches."""
        columns = len(text)
        while columns > 4 and self.width_of([text], size) > width:
            columns -= max(1, columns // 12)
            text = ellipsis(text, columns)
        return text


def height_of(lines: int, size: float) -> float:
    """Height of lines of text in inches."""
    return lines * size * _LEADING

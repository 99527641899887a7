"""A figure laid out in inches, with measured labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.cells import cell_len

from apportion.errors import InputError
from apportion_plugins.visualizers.drawing import Annotation, Axes, FigureCanvasAgg, Text, to_rgba
from apportion_plugins.visualizers.fonts import Lettering
from apportion_plugins.visualizers.labels import ellipsis, is_right_to_left, runs
from apportion_plugins.visualizers.look import Look
from apportion_plugins.visualizers.palette import DARK, LIGHT, Ramp, hex_of, text_on
from apportion_plugins.visualizers.plot_figure import PlotFigure

__all__ = ["MARGIN", "NOTE", "SUBTITLE", "TITLE", "Page", "drawn", "height_of"]

MARGIN = 0.18
TITLE, SUBTITLE, NOTE = 12.0, 9.0, 8.0
"""Font sizes in points."""
_LEADING, _ASCENT = 1.45 / 72, 0.8 / 72
"""Heights of a line, and of its part above the baseline, in inches per point."""
_SURE = 0.97
"""Share of a width that texts may fill: how wide they are depends a little on the resolution of the file."""
_SCALES = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Scales to try, so that the content fits the size that the user chose; smaller print is hard to read."""


class _TooSmallError(Exception):
    """The content does not fit.

    Args:
        width: least width in inches; 0 if it is the height that is too small.
        height: least height in inches; 0 if it is the width.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__()
        self.width, self.height = width, height


def drawn(look: Look, lettering: Lettering, layout: Callable[[Page], None], *, signed: bool = True) -> PlotFigure:
    """Draw a figure, in print as large as its size allows.

    Args:
        look: the options of the user.
        lettering: fonts for all text.
        layout: lays out and draws the content.
        signed: the values that it shows have a direction; ``False`` for magnitudes.

    Raises:
        InputError: the content does not fit the size.
    """
    least = _TooSmallError(0.0, 0.0)
    for scale in _SCALES:
        page = Page(lettering, look, scale, signed=signed)
        try:
            layout(page)
        except _TooSmallError as error:
            least = error
            continue
        return page.figure
    width, height = least.width, least.height or _height_at(least.width, look, lettering, layout)
    sides = [f"{side:.1f} {name}" for side, name in ((width, "wide"), (height, "high")) if side]
    titled = bool(height and look.title)
    raise InputError(
        f"size={look.size!r} is too small for this content, which must be at least {' and '.join(sides)}. Choose a "
        "larger size (None for what the content needs)"
        + (", show less of it, or leave out the title." if titled else ", or show less of it.")
    )


def _height_at(width: float, look: Look, lettering: Lettering, layout: Callable[[Page], None]) -> float:
    """The least height if that is too small as well, once the width is large enough; otherwise 0."""
    # A little more than needed: the width of text depends on rounding.
    enough = replace(look, size=(width + 0.05, look.height), dpi=None)
    try:
        layout(Page(lettering, enough, _SCALES[-1]))
    except _TooSmallError as error:
        return error.height
    return 0.0


class Page:
    """A figure laid out from top to bottom: header, axes placed in inches, notes.

    All lengths count in inches at a scale of 1.

    Args:
        lettering: fonts for all text.
        look: size, resolution and title.
        scale: size of everything, relative to the usual.
        signed: the values that it shows have a direction; ``False`` for magnitudes.
    """

    def __init__(self, lettering: Lettering, look: Look, scale: float = 1.0, *, signed: bool = True) -> None:
        self.figure = PlotFigure(dpi=look.dpi)
        # Everything is placed explicitly; a layout engine from the user's settings would move it.
        self.figure.set_layout_engine("none")
        FigureCanvasAgg(self.figure)
        self.look, self.signed = look, signed
        self.room = None if look.width is None else look.width / scale
        """Width that the user chose; ``None`` for what the content needs."""
        self._tall = None if look.height is None else look.height / scale
        self._lettering, self._scale = lettering, scale
        self._width = self._height = 0.0

    @property
    def ramp(self) -> Ramp:
        """Colours that suit the background of the user's matplotlib style."""
        return self.signed_ramp if self.signed else self.signed_ramp.of_magnitudes()

    @property
    def signed_ramp(self) -> Ramp:
        """The same for values with a direction, whatever the others in the figure."""
        *background, alpha = to_rgba(self.figure.get_facecolor())
        red, green, blue = (round(255 * part) for part in background)
        return DARK if alpha and text_on((red, green, blue)) == (255, 255, 255) else LIGHT

    def faded(self, colour: Any, share: float) -> str:
        """A colour mixed with the background; PostScript files know no transparency."""
        *paper, alpha = to_rgba(self.figure.get_facecolor())
        ground = paper if alpha else (1.0, 1.0, 1.0)
        mixed = (share * c + (1 - share) * g for c, g in zip(to_rgba(colour)[:3], ground, strict=True))
        red, green, blue = (round(255 * part) for part in mixed)
        return hex_of((red, green, blue))

    def points(self, size: float) -> float:
        """Size in points for matplotlib."""
        return size * self._scale

    def style(self, size: float) -> dict[str, Any]:
        """Keyword arguments for text: fonts that have its characters, and ``$…$`` taken literally."""
        families = self._lettering.families
        return {"family": families, "size": self.points(size), "parse_math": False, "usetex": False}

    def drawable(self, text: str) -> str:
        """The text with characters that the fonts lack replaced."""
        return self._lettering.drawable(text)

    def width_of(self, texts: Sequence[str], size: float) -> float:
        """Width of the widest text in inches."""
        widest = 0.0
        for text in texts:
            drawn = self.figure.text(0, 0, "".join(runs(text)), **self.style(size))
            widest = max(widest, float(drawn.get_window_extent().width) / self.figure.dpi / self._scale)
            drawn.remove()
        return widest

    def need_width(self, least: float) -> None:
        """Try a smaller scale if the width that the user chose is below ``least``."""
        if self.room is not None and self.room < least - 1e-9:
            raise _TooSmallError(least * self._scale, 0.0)

    def row_height(self, rows: int, natural: float, least: float, rest: float) -> float:
        """Height of a row: the natural one, or what fills the height that the user chose beside ``rest``.

        A smaller scale is tried if it would be below ``least``.
        """
        if self._tall is None:
            return natural
        height = (self._tall - rest) / rows
        if height < least - 1e-9:
            raise _TooSmallError(0.0, (rest + rows * least) * self._scale)
        return height

    def resize(self, width: float, height: float) -> None:
        """Set the size in inches."""
        self._width, self._height = width, height
        self.figure.set_size_inches(width * self._scale, height * self._scale)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes at a position in inches from the upper left corner."""
        bottom = self._height - top - height
        box = (left / self._width, bottom / self._height, width / self._width, height / self._height)
        return self.figure.add_axes(box)

    def width_of_axes(self, axes: Axes) -> float:
        """Width of axes in inches."""
        return float(axes.get_position().width) * self._width

    def lines(self, texts: Sequence[str], top: float, size: float, **style: Any) -> None:
        """Write lines of text at the left margin, from ``top`` inches downwards."""
        for i, text in enumerate(texts):
            y = 1 - (top + (i * _LEADING + _ASCENT) * size) / self._height
            self._line(runs(text), y, size, self.style(size) | {"va": "baseline", "ha": "left"} | style)

    def _line(self, parts: Sequence[str], y: float, size: float, style: dict[str, Any]) -> None:
        """Write parts of a line one after the other: marks of direction between them would be printed."""
        before: Text | None = None
        gap = 0.0
        for part in parts:
            left, right = self._spaces(part, size) if len(parts) > 1 else (0.0, 0.0)
            shown, gap = part.strip(" ") if len(parts) > 1 else part, gap + left
            if before is None:
                before = self.figure.text(MARGIN / self._width, y, shown, **style)
            else:
                # Where a part ends depends on the resolution of the file, so it is found when the figure is drawn.
                place: dict[str, Any] = {"xycoords": (before, "figure fraction"), "textcoords": "offset points"}
                offset = (gap * self._scale * 72, 0.0)
                before = Annotation(shown, (1.0, y), offset, annotation_clip=False, **place, **style)
                self.figure.add_artist(before)
            gap = right

    def _spaces(self, text: str, size: float) -> tuple[float, float]:
        """Widths in inches of the spaces to the left and to the right of a text."""
        space = self.width_of(["| |"], size) - self.width_of(["||"], size)
        first, last = (space * (len(text) - len(rest)) for rest in (text.lstrip(" "), text.rstrip(" ")))
        return (last, first) if is_right_to_left(text) else (first, last)

    def wrapped(self, text: str, width: float, size: float, most: int = 4) -> list[str]:
        """Wrap the text into lines of at most ``width`` inches; text beyond ``most`` lines is elided."""
        text, width = self.drawable(text), _SURE * width
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
        columns, shown = cell_len(text), text
        while columns > 4 and self.width_of([shown], size) > width:
            columns -= max(1, columns // 12)
            shown = ellipsis(text, columns)
        return shown


def height_of(lines: int, size: float) -> float:
    """Height of lines of text in inches."""
    return lines * size * _LEADING

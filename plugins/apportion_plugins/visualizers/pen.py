"""Adaptation of text and colours to the capabilities of a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.color import Color
from rich.style import Style

from apportion_plugins.visualizers.labels import has_right_to_left
from apportion_plugins.visualizers.palette import MIDDLE, Ramp, text_on

__all__ = ["Pen"]

FAINT = 0.08
BAR = 0.8
_ASCII = str.maketrans(
    {"−": "-", "“": '"', "”": '"', "…": "~", "→": "->", "⏎": "\\n", "⇥": "\\t", "␣": "_", "±": "+-", "Σ": "sum of "}
    | {"↑": "^", "↓": "v", "▐": " ", "▌": " ", "█": "#", "│": "|", "·": "-", "\u200e": ""}
)


@dataclass(frozen=True, slots=True)
class Pen:
    """Formats text for a console.

    Attributes:
        ascii_only: the console may support only ASCII.
        coloured: the console supports colours.
        signed: the values have a direction; ``False`` for magnitudes.
    """

    ascii_only: bool
    coloured: bool
    signed: bool = True

    def say(self, text: str) -> str:
        """The text in characters that the console supports; others as ``\\u…``."""
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode() if self.ascii_only else text

    def cell(self, text: str) -> str:
        """The text for a line with other content, which right-to-left text must not reorder."""
        return self.say(f"{text}\u200e" if has_right_to_left(text) else text)

    @property
    def _ramp(self) -> Ramp:
        return MIDDLE if self.signed else MIDDLE.of_magnitudes()

    def background(self, strength: float) -> Style:
        """Background style for text; none for a strength close to 0."""
        if math.isnan(strength) or abs(strength) < FAINT:
            return Style()
        colour = self._ramp.colour(strength)
        return Style(bgcolor=Color.from_rgb(*colour), color=Color.from_rgb(*text_on(colour)))

    def bar(self, strength: float, half: int) -> tuple[str, str, Style]:
        """A bar to the left or right of a zero line, in steps of half a column, and its style.

        Magnitudes have nothing on the left of the line.
        """
        halves = 0 if math.isnan(strength) else round(abs(strength) * half * 2)
        whole, rest = divmod(halves, 2)
        left, right = "", "█" * whole + "▌" * rest
        if strength < 0:
            left, right = "▐" * rest + "█" * whole, ""
        colour = Color.from_rgb(*self._ramp.colour(BAR if strength > 0 else -BAR))
        return self.say(left.rjust(half if self.signed else 0)), self.say(right.ljust(half)), Style(color=colour)

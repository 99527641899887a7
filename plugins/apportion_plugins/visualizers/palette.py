"""Colours that are safe for colour-blind readers: blue lowers, orange raises, neutral is zero; magnitudes are purple.

The ramps are straight lines in OKLCH, a perceptually uniform colour space, so that +x and −x look equally strong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

__all__ = ["DARK", "LIGHT", "MIDDLE", "Ramp", "colour_limit", "hex_of", "strengths", "text_on"]

RGB = tuple[int, int, int]

_LMS = ((1, 0.3963377774, 0.2158037573), (1, -0.1055613458, -0.0638541728), (1, -0.0894841775, -1.2914855480))
_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)

MAGNITUDES = 305.0
"""Hue of magnitudes, in degrees: purple, far from both of the hues that stand for directions."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """Colours for strengths from −1 to 1.

    Attributes:
        neutral: lightness at 0.
        strong: lightness at ±1.
        chroma: colourfulness at ±1; 0 at 0.
        raises: hue of positive strengths, in degrees.
        lowers: hue of negative ones.
    """

    neutral: float
    strong: float
    chroma: float = 0.14
    raises: float = 52.0
    lowers: float = 250.0

    def colour(self, strength: float) -> RGB:
        """Colour of a strength, which is clipped to [−1, 1]; grey for NaN."""
        if math.isnan(strength):
            return _srgb((self.neutral + self.strong) / 2, 0.0, 0.0)
        amount = min(1.0, abs(strength))
        hue = self.raises if strength > 0 else self.lowers
        return _srgb(self.neutral + (self.strong - self.neutral) * amount, self.chroma * amount**0.8, hue)

    def of_magnitudes(self) -> Ramp:
        """The same lightness in one hue, which stands for no direction."""
        return replace(self, raises=MAGNITUDES, lowers=MAGNITUDES)


LIGHT = Ramp(neutral=0.97, strong=0.55)
"""For light backgrounds: strong colours are dark."""
DARK = Ramp(neutral=0.29, strong=0.66)
"""For dark backgrounds: strong colours are light."""
MIDDLE = Ramp(neutral=0.76, strong=0.68, chroma=0.15)
"""For unknown backgrounds, as in terminals: strong colours are vivid."""


def colour_limit(values: Float64[np.ndarray, "*shape"]) -> float:
    """Largest finite magnitude, which gets the strongest colour; 1 if all values are zero."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def strengths(values: Float64[np.ndarray, "*shape"], limit: float | None = None) -> Float64[np.ndarray, "*shape"]:
    """Values relative to the largest magnitude (or to ``limit``), from −1 to 1."""
    clipped: np.ndarray = np.clip(values / (colour_limit(values) if limit is None else limit), -1.0, 1.0)
    return clipped


def text_on(background: RGB) -> RGB:
    """Black or white, whichever contrasts more; at least 4.5 : 1 on any colour."""
    luminance = sum(w * _linear(c) for w, c in zip((0.2126, 0.7152, 0.0722), background, strict=True))
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)


def hex_of(colour: RGB) -> str:
    """Format a colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _linear(channel: int) -> float:
    part = channel / 255
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def _srgb(lightness: float, chroma: float, hue: float) -> RGB:
    """OKLCH to 8-bit sRGB (https://bottosson.github.io/posts/oklab/), clipped to what a screen can show."""
    angle = math.radians(hue)
    lab = (lightness, chroma * math.cos(angle), chroma * math.sin(angle))
    lms = (np.array(_LMS) @ np.array(lab)) ** 3
    linear = np.clip(np.array(_RGB) @ lms, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(c) * 255) for c in encoded)
    return red, green, blue

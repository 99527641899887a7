"""One picture in a figure: its pixels, the scores of its regions, their borders and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from apportion_plugins.visualizers.canvas import Page
from apportion_plugins.visualizers.drawing import Axes, ListedColormap, Normalize, Path, PathPatch, withStroke
from apportion_plugins.visualizers.grid import STEPS, colours
from apportion_plugins.visualizers.outlines import outlines
from apportion_plugins.visualizers.palette import hex_of, text_on
from apportion_plugins.visualizers.pictures import ShownPicture

__all__ = ["LABEL_SIZE", "Colouring", "Place", "draw_labels", "draw_picture", "placed_labels", "shade", "shades"]

LABEL_SIZE = 7.5
"""Font size of labels in points."""
PAPER = 0.07
"""Strength of the background where a picture is not known."""
DARKEST = 0.06
"""Brightness of pixels whose score is 0, relative to the picture, where scores darken it."""
COLOURFUL = 0.4
"""Colour that is left of a picture below coloured scores, which would mix with it otherwise."""
LINE, HALO = "#2b2b2b", "#ffffff"
SHARP = 400
"""Pixels of the longer side up to which pixels are drawn as squares; larger pictures are smoothed."""


@dataclass(frozen=True)
class Colouring:
    """Style in which scores are drawn.

    Attributes:
        overlay: ``"heat"``, ``"heat_only"`` or ``"masked"``.
        alpha: opacity of the colours on a picture.
        ends: least and greatest strength on the colour scale.
        limit: magnitude with the strongest colour.
        border: width of borders in points; 0 for none.
    """

    overlay: str
    alpha: float
    ends: tuple[float, float]
    limit: float
    border: float

    def covers(self, picture: ShownPicture) -> bool:
        """True if colours are drawn without the picture below."""
        return self.overlay == "heat_only" or (self.overlay == "heat" and picture.pixels is None)


@dataclass(frozen=True)
class Place:
    """Place of a picture in a figure, in inches from the upper left corner.

    Attributes:
        left: left edge.
        top: upper edge.
        width: width.
        height: height.
    """

    left: float
    top: float
    width: float
    height: float

    def point(self, picture: ShownPicture, point: tuple[float, float]) -> tuple[float, float]:
        """A point of the picture in inches."""
        x, y = point
        return self.left + x * self.width / picture.width, self.top + y * self.height / picture.height


def shade(strength: float) -> tuple[int, int, int]:
    """Grey that stands for the brightness of a masked picture: dark for a strength of 0."""
    grey = round(255 * (DARKEST + (1 - DARKEST) * min(1.0, abs(strength))))
    return grey, grey, grey


def shades(ends: tuple[float, float]) -> ListedColormap:
    """Greys for the strengths between these."""
    return ListedColormap([hex_of(shade(float(step))) for step in np.linspace(*ends, STEPS)])


def draw_picture(
    page: Page,
    axes: Axes,
    picture: ShownPicture,
    scores: Float64[np.ndarray, "H W"],
    colouring: Colouring,
) -> None:
    """Draw a picture with its scores in axes, in which one unit is a pixel.

    Args:
        page: the figure.
        axes: the axes.
        picture: the picture.
        scores: the score of each pixel; NaN for none.
        colouring: how scores are drawn.
    """
    place: dict[str, Any] = {"extent": (0, picture.width, picture.height, 0), "aspect": "auto"}
    sharp = max(picture.width, picture.height) <= SHARP
    axes.imshow(_ground(page, picture, scores, colouring), interpolation="nearest" if sharp else "antialiased", **place)
    if colouring.overlay != "masked":
        _draw_scores(page, axes, picture, scores, colouring, place)
    axes.set_xlim(0, picture.width)
    axes.set_ylim(picture.height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(edgecolor=page.faded(axes.spines["left"].get_edgecolor(), 0.4), linewidth=page.points(0.6))
    if colouring.border:
        _draw_borders(page, axes, picture, colouring.border)


def _ground(
    page: Page, picture: ShownPicture, scores: Float64[np.ndarray, "H W"], colouring: Colouring
) -> UInt8[np.ndarray, "H W 3"]:
    """The picture below the scores: with less colour, darkened, or plain."""
    plain = np.full((picture.height, picture.width, 3), _plain(page), np.uint8)
    if colouring.overlay == "masked":
        base = plain if picture.pixels is None else picture.pixels
        bright = np.clip(np.nan_to_num(scores) / (colouring.ends[1] or colouring.ends[0]) / colouring.limit, 0.0, 1.0)
        return _whole(base * (DARKEST + (1 - DARKEST) * bright)[..., None])
    if colouring.overlay == "heat_only" or picture.pixels is None:
        return plain
    grey = picture.pixels @ np.array([0.299, 0.587, 0.114])
    return _whole(COLOURFUL * picture.pixels + (1 - COLOURFUL) * grey[..., None])


def _whole(pixels: Float64[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    rounded: np.ndarray = np.rint(pixels).astype(np.uint8)
    return rounded


def _plain(page: Page) -> tuple[int, int, int]:
    """The colour of a picture that is not known."""
    text = page.faded("#ffffff" if page.signed_ramp.neutral < 0.5 else "#000000", PAPER).lstrip("#")
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)


def _draw_scores(
    page: Page,
    axes: Axes,
    picture: ShownPicture,
    scores: Float64[np.ndarray, "H W"],
    colouring: Colouring,
    place: Mapping[str, Any],
) -> None:
    least, most = colouring.ends
    palette = colours(page.ramp, least, most).with_extremes(bad=(0, 0, 0, 0))
    # As one number, matplotlib would apply it twice in PDF, PostScript and SVG files.
    alpha = np.full(scores.shape, 1.0 if colouring.covers(picture) else colouring.alpha)
    axes.imshow(
        np.ma.masked_invalid(scores),
        cmap=palette,
        norm=Normalize(least * colouring.limit, most * colouring.limit),
        alpha=alpha,
        interpolation="nearest",
        **place,
    )


def _draw_borders(page: Page, axes: Axes, picture: ShownPicture, width: float) -> None:
    """Outline all regions: a dark line on a light one, to be seen on any picture."""
    points: list[tuple[int, int]] = []
    codes: list[Any] = []
    for mask in picture.masks.values():
        for line in outlines(mask):
            points += [*line, line[0]]
            codes += [Path.MOVETO, *[Path.LINETO] * (len(line) - 1), Path.CLOSEPOLY]
    if not points:
        return
    path = Path(points, codes)
    for colour, thick in ((HALO, 2.2 * width), (LINE, width)):
        style: dict[str, Any] = {"linewidth": page.points(thick), "joinstyle": "miter"}
        axes.add_patch(PathPatch(path, facecolor="none", edgecolor=colour, **style))


def placed_labels(
    page: Page, picture: ShownPicture, place: Place, texts: Mapping[int, str], order: Sequence[int]
) -> dict[int, str]:
    """Those labels that have room, without covering each other.

    Args:
        page: the figure.
        picture: the picture.
        place: its place in the figure.
        texts: labels by the number of the feature.
        order: the features, the most important first.
    """
    widths = {text: page.width_of([text], LABEL_SIZE) for text in set(texts.values())}
    taken: list[tuple[float, float, float, float]] = []
    found = {}
    for feature in order:
        if feature not in texts or feature not in picture.points:
            continue
        x, y = place.point(picture, picture.points[feature])
        wide, tall = widths[texts[feature]] / 2 + 0.02, 0.55 * LABEL_SIZE / 72
        own = (x - wide, y - tall, x + wide, y + tall)
        inside = place.left - 0.02 <= own[0] and own[2] <= place.left + place.width + 0.02
        if inside and not any(_overlap(own, other) for other in taken):
            taken.append(own)
            found[feature] = texts[feature]
    return found


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def draw_labels(
    page: Page,
    axes: Axes,
    picture: ShownPicture,
    place: Place,
    scores: Float64[np.ndarray, "H W"],
    colouring: Colouring,
    labels: Mapping[int, str],
) -> None:
    """Write labels in axes of one unit per inch, whose origin is that of the figure.

    Args:
        page: the figure.
        axes: the axes.
        picture: the picture.
        place: its place in the figure.
        scores: the score of each pixel; NaN for none.
        colouring: how scores are drawn.
        labels: texts in regions, by the number of the feature.
    """
    style = page.style(LABEL_SIZE) | {"ha": "center", "va": "center_baseline"}
    halo = [withStroke(linewidth=page.points(2.0), foreground=HALO)]
    for feature, text in labels.items():
        x, y = picture.points[feature]
        score = float(scores[int(y), int(x)])
        if colouring.covers(picture) and np.isfinite(score):
            ink = hex_of(text_on(page.ramp.colour(score / colouring.limit)))
            axes.text(*place.point(picture, (x, y)), text, color=ink, **style)
        else:
            axes.text(*place.point(picture, (x, y)), text, color=LINE, path_effects=halo, **style)

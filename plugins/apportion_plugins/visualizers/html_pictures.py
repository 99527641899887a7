"""Pictures in the HTML view: regions in their colours, each with its name and score where a reader points."""

from __future__ import annotations

import base64
import functools
import io
import math
from collections.abc import Mapping
from html import escape

import numpy as np
from jaxtyping import UInt8

from apportion.errors import counted
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.html_prompt import tip
from apportion_plugins.visualizers.html_style import colour_class, fills
from apportion_plugins.visualizers.outlines import inner_point, outlines, svg_path
from apportion_plugins.visualizers.palette import colour_limit, strengths
from apportion_plugins.visualizers.pictures import ShownPicture, picture_titles, pixel_scores, shown_picture

__all__ = ["coloured_pictures"]

MOST = 640
"""Pixels of the longer side of a picture in the page."""
SMALL = 320
"""Longer side to which smaller pictures are enlarged."""
BESIDE = 400
"""Longer side of pictures that stand side by side."""
MANY = 150
"""Number of regions above which outlines are thinner."""
TEXT_COLUMNS = 60
"""Longest name of a region."""
HANDLE = 7
"""Radius of the dot of a region that others cover, in pixels of the page."""

_LAYOUT = """
.apn-view .apn-pictures { display: flex; flex-wrap: wrap; gap: 12px 18px; margin: 10px 0 6px; }
.apn-view .apn-picture { margin: 0; max-width: 100%; }
.apn-view .apn-picture figcaption { color: var(--apn-soft); margin-top: 4px; min-height: 2em; }
.apn-view .apn-stage { position: relative; isolation: isolate; width: 100%; background: var(--apn-line); }
.apn-view .apn-stage img, .apn-view .apn-stage svg { position: absolute; inset: 0; display: block; width: 100%;
  height: 100%; max-width: none; margin: 0; }
.apn-view .apn-stage img { filter: grayscale(0.6); }
.apn-view .apn-coarse { image-rendering: pixelated; }
.apn-view .apn-stage svg { pointer-events: none; overflow: visible; outline: none; }
.apn-view .apn-paint path { opacity: 0.55; }
.apn-view .apn-blank .apn-paint path { opacity: 1; }
.apn-view .apn-region path, .apn-view .apn-region circle { fill: transparent; stroke: var(--apn-ink);
  stroke-width: 1; vector-effect: non-scaling-stroke; }
.apn-view .apn-fine .apn-region path { stroke-width: 0.5; }
.apn-view .apn-region > :last-child { pointer-events: all; cursor: help; }
.apn-view .apn-region circle { fill: var(--apn-paper); }
.apn-view .apn-stage .apn-region:hover path, .apn-view .apn-stage .apn-region:focus path { stroke-width: 3;
  filter: drop-shadow(0 0 1px var(--apn-paper)) drop-shadow(0 0 1px var(--apn-paper)); }
.apn-view .apn-says { display: none; position: absolute; z-index: 9999; left: 0; top: 100%; max-width: 100%;
  margin-top: 3px; padding: 1px 6px; border-radius: 3px; pointer-events: none; overflow-wrap: anywhere; }
.apn-view .apn-region:hover + .apn-says, .apn-view .apn-region:focus + .apn-says { display: block; }
/* One at a time: the region that the reader points at, or else the one with the focus. */
.apn-view .apn-stage:has(.apn-region:hover) .apn-region:focus:not(:hover) + .apn-says { display: none; }
.apn-view .apn-stage:has(.apn-region:hover, .apn-region:focus) + figcaption { visibility: hidden; }
@media print { .apn-view .apn-picture { break-inside: avoid; } }
"""


def coloured_pictures(attribution: Attribution) -> list[str]:
    """The pictures of the prompt, side by side if there is room; nothing for a prompt without pictures."""
    if not attribution.pictures:
        return []
    size = MOST if len(attribution.pictures) == 1 else BESIDE
    shown = [
        shown_picture(picture, title, MOST)
        for picture, title in zip(attribution.pictures, picture_titles(attribution), strict=True)
    ]
    figures = [_figure(attribution, one, size) for one in shown]
    return [_style(), f'<div class="apn-pictures">{"".join(figures)}</div>']


@functools.cache
def _style() -> str:
    return f"<style>{_LAYOUT}{fills()}</style>"


def _figure(attribution: Attribution, shown: ShownPicture, size: int) -> str:
    """A picture, its regions, and a caption, whose place the name and score of a region take while it is pointed at."""
    longer = max(shown.width, shown.height)
    # Small pictures are enlarged to whole multiples, so that all of their pixels are equally large.
    factor = max(1, SMALL // longer) if longer < SMALL else min(1.0, size / longer)
    width = max(1, round(shown.width * factor))
    values = np.asarray(attribution.values, dtype=np.float64)
    regions = counted(len(shown.masks), "region") if shown.masks else "always present"
    label = escape(f"{shown.title}, {regions}")
    layers = [*_image(shown, coarse=factor > 1), _paint(attribution, shown), *_regions(attribution, shown)]
    kinds = [
        "apn-stage",
        *(["apn-blank"] if shown.pixels is None else []),
        *(["apn-fine"] if len(shown.masks) > MANY else []),
    ]
    style = f"aspect-ratio: {shown.width} / {shown.height}"
    about = f"{shown.title}: {regions}." if shown.is_named else f"{regions.capitalize()}."
    caption = escape(" ".join([about, *_notes(shown, values)]))
    return (
        f'<figure class="apn-picture" style="width: {width}px">'
        f'<div class="{" ".join(kinds)}" role="group" aria-label="{label}" style="{style}">{"".join(layers)}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _notes(picture: ShownPicture, values: np.ndarray) -> list[str]:
    notes = []
    if picture.masks:
        notes.append("Point at one, or go to it with the tab key, to read its score.")
    if picture.overlap:
        notes.append("Where regions overlap, the colour is that of the sum of their scores.")
    if not np.isfinite(values[list(picture.masks)]).all():
        notes.append("Regions without a score have no colour.")
    if picture.pixels is None:
        notes.append("The result was saved without the pixels of the picture.")
    return notes


def _image(picture: ShownPicture, *, coarse: bool) -> list[str]:
    if picture.pixels is None:
        return []
    kind = ' class="apn-coarse"' if coarse else ""
    return [f'<img{kind} alt="{escape(picture.title)}" src="data:image/png;base64,{_png(picture.pixels)}">']


def _png(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _paint(attribution: Attribution, picture: ShownPicture) -> str:
    """The colours of all pixels: a path for each colour."""
    values = np.asarray(attribution.values, dtype=np.float64)
    strength = strengths(pixel_scores(picture, values, picture.masks.keys()), colour_limit(values))
    found, places = np.unique(strength, return_inverse=True)
    kinds = [colour_class(float(one), signed=attribution.signed) if np.isfinite(one) else "" for one in found]
    names, numbers = np.unique(kinds, return_inverse=True)
    numbered = numbers[places].reshape(strength.shape)
    masks = {str(name): numbered == number for number, name in enumerate(names) if name}
    paths = [f'<path class="{kind}" d="{svg_path(outlines(mask))}"></path>' for kind, mask in masks.items()]
    return f'<svg class="apn-paint" {_box(picture)} aria-hidden="true">{"".join(paths)}</svg>'


def _regions(attribution: Attribution, picture: ShownPicture) -> list[str]:
    """An outline for each region, which has its name and score; smaller regions lie on larger ones."""
    strength = strengths(np.asarray(attribution.values))
    order = sorted(picture.masks, key=lambda one: -int(picture.masks[one].sum()))
    levels = {feature: level for level, feature in enumerate(order, 1)} if picture.overlap else {}
    handles = _handles(picture, order)
    found = []
    for feature, mask in picture.masks.items():
        text = tip(attribution, feature, TEXT_COLUMNS)
        level = f' style="z-index: {levels[feature] + 1000 * (feature in handles)}"' if levels else ""
        kind = colour_class(float(strength[feature]), signed=attribution.signed)
        found.append(
            f'<svg class="apn-region" {_box(picture)}{level} tabindex="0" role="img" aria-label="{text}">'
            f'<title>{text}</title><path d="{svg_path(outlines(mask))}"></path>{handles.get(feature, "")}</svg>'
            f'<span class="apn-says {kind}" aria-hidden="true"><bdi>{text}</bdi></span>'
        )
    return found


def _handles(picture: ShownPicture, order: list[int]) -> Mapping[int, str]:
    """A dot for each region that smaller ones cover, so that it can be pointed at."""
    if not picture.overlap:
        return {}
    above = np.zeros((picture.height, picture.width), bool)
    radius = HANDLE * max(picture.width, picture.height) / MOST
    found: dict[int, str] = {}
    for feature in reversed(order):
        mask = picture.masks[feature]
        point = inner_point(mask)
        if point is not None and (mask & ~above).sum() < math.pi * radius**2:
            x = min(point[0] + 2.5 * radius * len(found), picture.width - radius)
            found[feature] = f'<circle cx="{x:.1f}" cy="{point[1]:.1f}" r="{radius:.1f}"></circle>'
        above |= mask
    return found


def _box(picture: ShownPicture) -> str:
    return f'viewBox="0 0 {picture.width} {picture.height}" preserveAspectRatio="none"'

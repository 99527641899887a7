"""Layout of pictures, words, and the legends of colours and lines, in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import MARGIN, Page
from apportion_plugins.visualizers.edges import CROSSING, HEIGHT
from apportion_plugins.visualizers.grid import AXIS, SCALE, draw_scale
from apportion_plugins.visualizers.header import header_of
from apportion_plugins.visualizers.image_links import Link, draw_links
from apportion_plugins.visualizers.image_panel import (
    Colouring,
    Place,
    draw_labels,
    draw_picture,
    placed_labels,
    shade,
    shades,
)
from apportion_plugins.visualizers.pictures import ShownPicture
from apportion_plugins.visualizers.strokes import KEY, STROKE_KEY, Strokes
from apportion_plugins.visualizers.text_boxes import draw_boxes
from apportion_plugins.visualizers.text_layout import Box, laid_out

__all__ = ["Content", "draw_content"]

WIDE, TALL = 6.04, 4.2
"""Room for one picture, in inches, unless the user chose a size."""
SEVERAL, LOWER = 9.6, 3.4
"""The same for several pictures, side by side."""
LOW, LOWEST = 1.7, 1.2
"""Height below which pictures go on in another row, and least height, in inches."""
GAP, NAME, LEAST_NAME = 0.22, 0.24, 0.5
LEAST_WIDTH = 4.8
LINE_GAP = 0.08
KEY_INDENT, KEY_GAP = 0.2, 0.5
NO_ROOM = "Labels without room are left out."


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that the figure shows.

    Attributes:
        attribution: the result.
        part: label of the part of the target.
        pictures: the pictures.
        scores: the score of each of their pixels.
        colouring: how the scores are drawn.
        labels: texts in regions, by the number of the feature.
        order: features, the most important first.
        words: the score of each feature, to colour the words; ``None`` for no words.
        regions: features that are regions of any picture of the prompt.
        links: interactions to draw.
        reading: reading aid.
        scale: text below the scale of colours.
        notes: notes at the bottom.
    """

    attribution: Attribution
    part: str
    pictures: Sequence[ShownPicture]
    scores: Sequence[Float64[np.ndarray, "H W"]]
    colouring: Colouring
    labels: Mapping[int, str]
    order: Sequence[int]
    words: Float64[np.ndarray, " F"] | None
    regions: frozenset[int]
    links: Sequence[Link]
    reading: str
    scale: str
    notes: list[str]

    @property
    def is_named(self) -> bool:
        """True if the names of the pictures are written above them."""
        return len(self.pictures) > 1 or any(picture.is_named for picture in self.pictures)


def draw_content(page: Page, content: Content) -> None:
    """Lay out and draw everything.

    Args:
        page: the figure.
        content: what it shows.
    """
    sheet = _Sheet(page, content)
    if sum(map(len, sheet.labels)) < len(content.labels):
        # The note takes room, so that less may be left for the pictures.
        sheet = _Sheet(page, replace(content, notes=[*content.notes, NO_ROOM]))
    sheet.draw()


class _Sheet:
    """Pictures in rows, below a header and above the words, legends and notes.

    Args:
        page: the figure.
        content: what it shows.
    """

    def __init__(self, page: Page, content: Content) -> None:
        self._page, self._content = page, content
        self._name = NAME if content.is_named else 0.0
        aspects = [picture.width / picture.height for picture in content.pictures]
        per_row, height, across = _arranged(page, aspects, content.scale)
        self._width = page.room or max(LEAST_WIDTH, across + 2 * MARGIN)
        about = {"reading": content.reading, "part": content.part}
        self._header = header_of(content.attribution, page, self._width, **about)
        self._notes = parts.wrapped_notes(page, content.notes, self._width)
        self._boxes = self._words()
        self._step = HEIGHT + (LINE_GAP if not content.links else 2 * LINE_GAP)
        self._above = (CROSSING if content.links else GAP) if self._boxes else 0.0
        lines = max((box.line for box in self._boxes), default=-1) + 1
        self._text = self._above + lines * self._step
        self._key = (2 if self._stacked else 1) * KEY if content.links else AXIS
        rest = self._header.height + self._text + self._key + parts.notes_height(self._notes)
        rows = -(-len(aspects) // per_row)
        natural = height + self._name + GAP
        room = page.row_height(rows, natural, min(natural, LOWEST + self._name + GAP), rest)
        height = min(height, room - self._name - GAP)
        page.resize(self._width, rest + rows * room)
        self._bottom = self._header.height + rows * room - GAP
        self._places = self._placed(aspects, per_row, height, room)
        self.labels = [
            placed_labels(page, picture, place, content.labels, content.order)
            for picture, place in zip(content.pictures, self._places, strict=True)
        ]
        """The labels that have room in each picture."""

    @property
    def _stacked(self) -> bool:
        """True if one legend is below the other."""
        return self._width < 2 * MARGIN + KEY_INDENT + SCALE + KEY_GAP + STROKE_KEY

    def draw(self) -> None:
        """Draw everything."""
        page, content = self._page, self._content
        for picture, scores, place in zip(content.pictures, content.scores, self._places, strict=True):
            axes = page.axes(place.left, place.top, place.width, place.height)
            draw_picture(page, axes, picture, scores, content.colouring)
        tops = self._tops()
        if content.links:
            self._draw_links(content.links, tops)
        if self._name:
            self._draw_names()
        if any(self.labels):
            self._draw_labels()
        if content.words is not None and self._boxes:
            self._draw_words(content.words, tops)
        self._draw_keys(self._bottom + self._text)
        self._header.draw(page)
        parts.draw_notes(page, self._notes, self._bottom + self._text + self._key)

    def _words(self) -> list[Box]:
        content = self._content
        if content.words is None:
            return []
        return laid_out(content.attribution, self._page, self._width - 2 * MARGIN, content.regions)

    def _tops(self) -> list[float]:
        """Upper edge of each line of words, from the lower edge of the pictures."""
        lines = max((box.line for box in self._boxes), default=-1) + 1
        return [self._above + line * self._step for line in range(lines)]

    def _placed(self, aspects: Sequence[float], per_row: int, height: float, room: float) -> list[Place]:
        found = []
        left, top = MARGIN, self._header.height
        for i, aspect in enumerate(aspects):
            if i and i % per_row == 0:
                left, top = MARGIN, top + room
            found.append(Place(left, top + self._name, aspect * height, height))
            left += aspect * height + GAP
        return found

    def _draw_names(self) -> None:
        page = self._page
        for picture, place in zip(self._content.pictures, self._places, strict=True):
            room = max(place.width, LEAST_NAME)
            axes = parts.blank_axes(page, place.left, place.top - NAME, room, NAME)
            name = page.fitted(page.drawable(picture.title), room, parts.LABEL)
            axes.text(0, NAME / 2, name, **(page.style(parts.LABEL) | {"ha": "left", "va": "center_baseline"}))

    def _draw_words(self, scores: Float64[np.ndarray, " F"], tops: Sequence[float]) -> None:
        page, colouring = self._page, self._content.colouring
        axes = parts.blank_axes(page, MARGIN, self._bottom, self._width - 2 * MARGIN, self._text)
        colour = shade if colouring.overlay == "masked" else page.ramp.colour
        features = {box.feature for box in self._boxes if box.feature is not None}
        colours = {feature: colour(float(scores[feature]) / colouring.limit) for feature in features}
        draw_boxes(page, axes, self._boxes, tops, colours)

    def _draw_labels(self) -> None:
        page, content = self._page, self._content
        axes = parts.blank_axes(page, 0.0, 0.0, self._width, self._bottom)
        everything = zip(content.pictures, self._places, content.scores, self.labels, strict=True)
        for picture, place, scores, texts in everything:
            draw_labels(page, axes, picture, place, scores, content.colouring, texts)

    def _draw_links(self, links: Sequence[Link], tops: Sequence[float]) -> None:
        page, content = self._page, self._content
        centres = {}
        for picture, place in zip(content.pictures, self._places, strict=True):
            for feature, point in picture.points.items():
                x, y = place.point(picture, point)
                centres[feature] = (x - MARGIN, y)
        axes = parts.blank_axes(page, MARGIN, 0.0, self._width - 2 * MARGIN, self._bottom + self._text)
        strokes = Strokes(page, [value for _, value in links])
        draw_links(axes, strokes, links, centres, self._boxes, [self._bottom + top for top in tops])

    def _draw_keys(self, top: float) -> None:
        """Draw the legends of colours, and of lines."""
        page, content = self._page, self._content
        left, colouring = MARGIN + KEY_INDENT, content.colouring
        room = min(SCALE, self._width - left - MARGIN - KEY_INDENT)
        axes = page.axes(left, top + (0.18 if content.links else 0.09), room, 0.1)
        palette = shades(colouring.ends) if colouring.overlay == "masked" else None
        draw_scale(page, axes, colouring.limit, content.scale, ends=colouring.ends, palette=palette)
        if not content.links:
            return
        left, top = (left, top + KEY) if self._stacked else (left + SCALE + KEY_GAP, top)
        strokes = Strokes(page, [value for _, value in content.links])
        strokes.draw_key(left, top, self._width - left - MARGIN, f"line: interaction ({content.attribution.unit})")


def _arranged(page: Page, aspects: Sequence[float], scale: str) -> tuple[int, float, float]:
    """Pictures per row, their height, and the width of the widest row, in inches.

    Args:
        page: the figure.
        aspects: width by height of each picture.
        scale: the text below the scale of colours, which needs room.
    """
    n = len(aspects)
    wide, tall = (WIDE, TALL) if n == 1 else (SEVERAL, LOWER)
    if page.room is not None:
        page.need_width(2 * (MARGIN + KEY_INDENT) + page.width_of([scale], parts.LABEL))
        wide = page.room - 2 * MARGIN
        tall = max(tall, wide)
    for rows in range(1, n + 1):
        per_row = -(-n // rows)
        lines = [aspects[start : start + per_row] for start in range(0, n, per_row)]
        height = min([tall, *((wide - (len(line) - 1) * GAP) / sum(line) for line in lines)])
        if height >= LOW:
            break
    return per_row, height, max(sum(line) * height + (len(line) - 1) * GAP for line in lines)

"""Layout of the prompt as boxes in lines, in inches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from apportion.protocols.features import Segment
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.canvas import Page
from apportion_plugins.visualizers.labels import ellipsis, has_right_to_left, one_line, short_label
from apportion_plugins.visualizers.own_target import target_segments

__all__ = ["Box", "first_boxes", "laid_out"]

SIZE = 10.0
PAD = 0.05
SPACE, JOINT = 0.07, 0.025
FEATURE_COLUMNS, PLAIN_COLUMNS = 32, 28


@dataclass(frozen=True)
class Box:
    """A box of text.

    Attributes:
        text: the text as drawn.
        feature: index of its feature; ``None`` for the rest of the prompt.
        line: line number, from 0 downwards.
        left: left edge of the box.
        width: width of the box.
    """

    text: str
    feature: int | None
    line: int
    left: float
    width: float

    @property
    def centre(self) -> float:
        """Horizontal centre of the box."""
        return self.left + self.width / 2


@dataclass(frozen=True)
class _Piece:
    text: str
    feature: int | None
    spaced: bool
    """Preceded by white space."""
    breaks: bool
    """Starts a new line."""


def laid_out(attribution: Attribution, page: Page, room: float, without: Collection[int] = ()) -> list[Box]:
    """Lay out the prompt in lines of at most ``room`` inches; from the right for right-to-left scripts.

    Args:
        attribution: the result.
        page: the figure.
        room: width in inches.
        without: features to leave out, such as the regions of pictures.
    """
    boxes: list[Box] = []
    line, right = 0, 0.0
    for piece in _pieces(attribution, short=page.look.short):
        if piece.feature in without:
            continue
        text = page.fitted(page.drawable(piece.text), room - 2 * PAD, SIZE)
        width = page.width_of([text], SIZE) + (2 * PAD if piece.feature is not None else 0.0)
        gap = 0.0 if not right else SPACE if piece.spaced else JOINT
        if right and (piece.breaks or right + gap + width > room):
            line, right, gap = line + 1, 0.0, 0.0
        boxes.append(Box(text, piece.feature, line, right + gap, width))
        right += gap + width
    if sum(has_right_to_left(box.text) for box in boxes) > len(boxes) / 2:
        widest = max(box.left + box.width for box in boxes)
        boxes = [Box(b.text, b.feature, b.line, widest - b.left - b.width, b.width) for b in boxes]
    return boxes


def first_boxes(boxes: Sequence[Box]) -> dict[int, Box]:
    """The first box of each feature."""
    found: dict[int, Box] = {}
    for box in boxes:
        if box.feature is not None:
            found.setdefault(box.feature, box)
    return found


def _pieces(attribution: Attribution, *, short: bool) -> list[_Piece]:
    """Pieces of the prompt: whole features, other text word by word; then a target whose tokens are features.

    At the end come features without a segment.
    """
    pieces: list[_Piece] = []
    spaced, breaks = False, False
    own = target_segments(attribution) if attribution.segments else ()
    for segment in (*attribution.segments, *((Segment("\n"),) if own else ()), *own):
        text = segment.text
        if segment.feature is not None:
            feature = attribution.features[segment.feature]
            label = short_label(feature) if short else ellipsis(one_line(text), FEATURE_COLUMNS)
            pieces.append(_Piece(label, segment.feature, spaced or text[:1].isspace(), breaks))
            spaced, breaks = text[-1:].isspace(), text.endswith("\n")
            continue
        for number, row in enumerate(text.split("\n")):
            breaks = breaks or number > 0
            spaced = spaced or row[:1].isspace()
            for word in row.split():
                pieces.append(_Piece(ellipsis(one_line(word), PLAIN_COLUMNS), None, spaced, breaks))
                spaced, breaks = True, False
            spaced = row[-1:].isspace() if row.strip() else spaced
    shown = {piece.feature for piece in pieces}
    pieces += [
        _Piece(ellipsis(one_line(feature.name), FEATURE_COLUMNS), i, True, False)
        for i, feature in enumerate(attribution.features)
        if i not in shown
    ]
    return pieces

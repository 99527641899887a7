"""Boxes of text in a figure: features in their colours, the rest of the prompt in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apportion_plugins.visualizers.canvas import Page
from apportion_plugins.visualizers.drawing import Axes, FancyBboxPatch, rcParams
from apportion_plugins.visualizers.edges import HEIGHT
from apportion_plugins.visualizers.palette import hex_of, text_on
from apportion_plugins.visualizers.text_layout import SIZE, Box

__all__ = ["draw_boxes"]


def draw_boxes(
    page: Page, axes: Axes, boxes: Sequence[Box], tops: Sequence[float], colours: Mapping[int, tuple[int, int, int]]
) -> None:
    """Draw boxes in axes of one unit per inch.

    Args:
        page: the figure.
        axes: the axes.
        boxes: the boxes.
        tops: upper edge of each line of boxes.
        colours: colour of each feature.
    """
    ground = page.figure.get_facecolor()
    edge = hex_of(page.ramp.colour(float("nan")))
    for box in boxes:
        top = tops[box.line]
        style = page.style(SIZE) | {"ha": "center", "va": "center"}
        place = (box.centre, top + HEIGHT / 2)
        if box.feature is None:
            axes.add_patch(FancyBboxPatch((box.left, top), box.width, HEIGHT, "square,pad=0", fc=ground, ec="none"))
            axes.text(*place, box.text, color=page.faded(rcParams["text.color"], 0.75), **style)
            continue
        colour = colours[box.feature]
        shape = f"round,pad=0,rounding_size={min(0.06, box.width / 3)}"
        axes.add_patch(FancyBboxPatch((box.left, top), box.width, HEIGHT, shape, fc=hex_of(colour), ec=edge, lw=0.5))
        axes.text(*place, box.text, color=hex_of(text_on(colour)), **style)

"""Heat map over the pictures of a prompt, with its words below."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from apportion.errors import InputError, listing, shown
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import Page, drawn
from apportion_plugins.visualizers.facts import quantity_of
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.image_figure import Content, draw_content
from apportion_plugins.visualizers.image_links import Link, strongest_links
from apportion_plugins.visualizers.image_panel import Colouring
from apportion_plugins.visualizers.labels import ellipsis, one_line
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.numbers import Numbers
from apportion_plugins.visualizers.pairs import interval_notes, reading
from apportion_plugins.visualizers.palette import colour_limit
from apportion_plugins.visualizers.pictures import ShownPicture, chosen_pictures, pixel_scores, region_features
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import check_limit, left_out, ranked
from apportion_plugins.visualizers.target_part import TargetPart, pairs_of_part, target_part

__all__ = ["Image"]

MOST_PIXELS = 1600
"""Pixels of the longer side of a picture as it is drawn."""
BORDER = 0.7
"""Usual width of borders in points."""
POINTS = 0.75
"""Points of a pixel of 1/96 inch."""
MOST_LINKS = 1000
NAME_COLUMNS = 24
OVERLAYS = ("heat", "heat_only", "masked")
SIGNS = {"all": (-1.0, 1.0), "positive": (0.0, 1.0), "negative": (-1.0, 0.0), "absolute": (0.0, 1.0)}
"""Least and greatest strength on the scale of each choice of signs."""
LABELS = (False, "scores", "names", "numbers")


class Image:
    """The pictures of a prompt with the scores of their regions, and its words below."""

    def render(
        self,
        attribution: Attribution,
        *,
        token: int | str | Sequence[int] | None = None,
        picture: int | str | None = None,
        images: object = None,
        overlay: str = "heat",
        alpha: float = 0.6,
        sign: str = "all",
        top: int | None = None,
        borders: bool | float = True,
        labels: bool | str = False,
        words: bool | None = None,
        pairs: int | None = None,
        title: str | None = AUTO,
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw a heat map over each picture of the prompt of an ``ImageText``.

        A pixel in several regions has the sum of their scores; one in no region stays without a colour. Pictures and
        words share one scale of colours.

        Args:
            attribution: the result.
            token: the part of the target to show: position or text of a token, or a pair ``(start, stop)`` of positions
                for the sum of the tokens from the first to the one before the second; ``None`` for the whole target.
            picture: position or name of a picture; ``None`` for all, side by side.
            images: the picture that was attributed to, or a list of them, for results that were saved without pixels:
                paths, PIL images or arrays.
            overlay: ``"heat"`` for colours over the picture, whose own colours are faint; ``"heat_only"`` for colours
                alone; ``"masked"`` for the picture itself, dark where scores are low.
            alpha: opacity of the colours over the picture, from 0 to 1.
            sign: ``"all"`` scores, those above 0 (``"positive"``) or below (``"negative"``), or the magnitude of all
                (``"absolute"``). For ``overlay="masked"``, ``"all"`` is ``"positive"``.
            top: number of regions of largest magnitude to colour; ``None`` for all.
            borders: outline the regions; a number for the width of the lines in pixels of 1/96 inch.
            labels: what to write in the regions: ``"scores"``, ``"names"``, or ``"numbers"``, with which
                ``result.values[number]`` is the score; ``False`` for nothing.
            words: show the text below the pictures, in the colours of its features; ``None`` to do so if it has any.
            pairs: number of interactions to draw as lines between regions and words, or two regions, the strongest
                ones; ``None`` for none. The result must be one of ``method="interactions"``.
            title: text above the figure; ``"auto"`` for estimand, target and model, ``None`` for none.
            size: width and height in inches, such as ``(6.5, 4)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Returns:
            A matplotlib figure, which notebooks display; ``figure.savefig("picture.png")`` saves it.

        Raises:
            ResultError: ``pairs`` is given, and the result has no interactions.
            InputError: the prompt has no pictures, there is no such token or picture, ``images`` do not fit the
                pictures, an option is out of range, or the content does not fit ``size``.
        """
        look = Look(title, "full", size, dpi)
        shown_pictures = chosen_pictures(attribution, picture, images, MOST_PIXELS)
        sign = _checked_sign(attribution, overlay, sign)
        chosen = _Choice(attribution, target_part(attribution, token), shown_pictures, sign)
        alpha, border = _checked_alpha(alpha), _checked_border(borders)
        check_limit("top", top)
        check_limit("pairs", pairs, MOST_LINKS)
        chosen.limit_to(top)
        texts = chosen.labels(labels)
        has_words = chosen.has_words if words is None else _flag("words", words)
        links, link_notes = chosen.links(pairs, words=has_words)
        scores, strongest = chosen.scores(words=has_words)
        about = {} if links is None else {"title": chosen.pairs.index, "reading": reading(attribution)}
        fonts = lettering([*parts.figure_texts(attribution, title), *chosen.texts, *texts.values()])
        notes = [*chosen.notes(overlay), *link_notes, *fonts.notes]

        def layout(page: Page) -> None:
            content = Content(
                attribution=attribution,
                part=chosen.part.label,
                pictures=shown_pictures,
                scores=scores,
                look=Colouring(overlay, alpha, SIGNS[sign] if attribution.signed else (0.0, 1.0), strongest, border),
                labels={feature: page.drawable(text) for feature, text in texts.items()},
                order=chosen.order,
                words=_of_sign(chosen.part.values, sign) if has_words else None,
                regions=frozenset(region_features(attribution)),
                links=links,
                scale=quantity_of(attribution),
                unit=attribution.unit,
                notes=notes,
                **about,
            )
            draw_content(page, content)

        return drawn(look, fonts, layout, signed=attribution.signed and sign != "absolute")

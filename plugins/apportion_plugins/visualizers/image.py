"""Heat map over the pictures of a prompt, with its words below."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.options import true_or_false
from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import Page, drawn
from apportion_plugins.visualizers.facts import quantity_of
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.image_choice import ImageChoice, border_width, check_choice, opacity
from apportion_plugins.visualizers.image_comparison import comparison_of_pictures
from apportion_plugins.visualizers.image_figure import Content, draw_content
from apportion_plugins.visualizers.image_links import Link, strongest_links
from apportion_plugins.visualizers.image_panel import Colouring
from apportion_plugins.visualizers.look import AUTO, Look
from apportion_plugins.visualizers.pictures import chosen_pictures, region_features
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.selection import check_limit
from apportion_plugins.visualizers.target_part import TargetPart, pairs_of_part, target_part

__all__ = ["Image"]

MOST_PIXELS = 1600
"""Pixels of the longer side of a picture as it is drawn."""
MOST_LINKS = 1000


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
        alpha: float = 0.55,
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

        A pixel in several regions has the sum of their scores; one in no region has no colour. Pictures and words share
        one scale of colours.

        Args:
            attribution: the result.
            token: the part of the target to show: position or text of a token, or a pair ``(start, stop)`` of positions
                for the sum of its tokens from ``start`` to before ``stop``; ``None`` for the whole target.
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
            labels: texts in the regions: ``"scores"``, ``"names"``, or ``"numbers"``, with which
                ``result.values[number]`` is the score; ``False`` for none.
            words: show the text below the pictures, in the colours of its features; ``None`` to do so if it has any,
                unless the pictures are masked.
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
        pictures = chosen_pictures(attribution, picture, images, MOST_PIXELS)
        sign = check_choice(attribution, overlay, sign)
        regions, part = region_features(attribution), target_part(attribution, token)
        has_words = overlay != "masked" and len(regions) < len(attribution.features)
        has_words = has_words if words is None else true_or_false("words", words)
        choice = ImageChoice(attribution, part, pictures, sign, top, has_words)
        links, link_notes = _links(attribution, part, choice, pairs)
        labelled = choice.labels(labels)
        texts = [*(segment.text for segment in attribution.segments), *(one.title for one in pictures), part.label]
        fonts = lettering([*parts.figure_texts(attribution, title), *texts])
        colouring = Colouring(overlay, opacity(alpha), choice.ends, choice.limit, border_width(borders))

        def layout(page: Page) -> None:
            content = Content(
                attribution=attribution,
                part=part.label,
                pictures=pictures,
                scores=choice.scores,
                colouring=colouring,
                labels={feature: page.drawable(text) for feature, text in labelled.items()},
                order=choice.order,
                words=choice.values if has_words else None,
                regions=frozenset(regions),
                links=links,
                reading=choice.reading,
                scale=quantity_of(attribution),
                notes=[*choice.notes(overlay), *link_notes, *fonts.notes],
            )
            draw_content(page, content)

        return drawn(look, fonts, layout, signed=attribution.signed and sign != "absolute")

    def render_comparison(
        self,
        comparison: ResultComparison,
        *,
        images: object = None,
        scale: str = "own",
        alpha: float = 0.55,
        borders: bool | float = True,
        title: str | None = AUTO,
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> PlotFigure:
        """Draw the pictures once for each result, such as those of several fills.

        Args:
            comparison: the results.
            images: as in ``render``.
            scale: ``"own"`` for colours by each result's own largest magnitude, because magnitudes differ from fill to
                fill; ``"unit"`` for one scale of all.
            alpha: as in ``render``.
            borders: as in ``render``.
            title: as in ``render``.
            size: as in ``render``.
            dpi: as in ``render``.

        Raises:
            InputError: the prompt has no pictures, an option is out of range, or the content does not fit ``size``.
        """
        colouring = Colouring("heat", opacity(alpha), (-1.0, 1.0), 1.0, border_width(borders))
        look = Look(title, "full", size, dpi)
        return comparison_of_pictures(
            comparison, look, images=images, scale=scale, colouring=colouring, most=MOST_PIXELS
        )


def _links(
    attribution: Attribution, part: TargetPart, choice: ImageChoice, most: int | None
) -> tuple[list[Link], list[str]]:
    """The interactions to draw, and notes on them."""
    check_limit("pairs", most, MOST_LINKS)
    if most is None:
        return [], []
    return strongest_links(attribution, pairs_of_part(attribution, part), choice.visible, choice.words, most)

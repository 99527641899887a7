"""Heat maps of several results over the same pictures, such as those of one prompt under several fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from apportion.errors import InputError, listing, shown
from apportion.results.comparison import ResultComparison
from apportion_plugins.visualizers import figure as parts
from apportion_plugins.visualizers.canvas import Page, drawn
from apportion_plugins.visualizers.comparison_facts import two_decimals
from apportion_plugins.visualizers.facts import meaning_of_signs, quantity_of
from apportion_plugins.visualizers.fonts import lettering
from apportion_plugins.visualizers.image_figure import Content, draw_content
from apportion_plugins.visualizers.image_panel import Colouring
from apportion_plugins.visualizers.labels import one_line
from apportion_plugins.visualizers.look import Look
from apportion_plugins.visualizers.palette import colour_limit
from apportion_plugins.visualizers.pictures import ShownPicture, chosen_pictures, pixel_scores, region_features
from apportion_plugins.visualizers.plot_figure import PlotFigure
from apportion_plugins.visualizers.target_part import target_part

__all__ = ["comparison_of_pictures"]

OWN, UNIT = "own", "unit"


def comparison_of_pictures(
    comparison: ResultComparison, look: Look, *, images: object, scale: str, colouring: Colouring, most: int
) -> PlotFigure:
    """Draw the pictures once for each result.

    Args:
        comparison: the results.
        look: the options of the user.
        images: pictures for results that hold no pixels.
        scale: ``"own"`` for colours by each result's own largest magnitude, ``"unit"`` for one scale of all.
        colouring: how scores are drawn.
        most: pixels of the longer side of a picture as it is drawn.

    Raises:
        InputError: the prompt has no pictures, ``scale`` is neither, or the results have different units.
    """
    if scale not in (OWN, UNIT):
        raise InputError(
            f"scale={shown(scale)} must be 'own' (colours by each result's own largest magnitude) or 'unit' (one scale "
            "of all)."
        )
    units = list(dict.fromkeys(one.unit for one in comparison.results))
    if scale == UNIT and len(units) > 1:
        raise InputError(f"The results are in {listing(units)}, so they have no common scale; use scale='own'.")
    first = comparison.results[0]
    regions = region_features(first)
    pictures: list[ShownPicture] = []
    scores: list[np.ndarray] = []
    for name, result in zip(comparison.names, comparison.results, strict=True):
        theirs = chosen_pictures(result, None, images, most)
        part = target_part(result, comparison.token)
        found = [pixel_scores(one, part.values, sorted(regions)) for one in theirs]
        largest = colour_limit(part.values) if scale == OWN else 1.0
        scores += [one / largest for one in found]
        titles = [name] if len(theirs) == 1 else [f"{name}, {one.title}" for one in theirs]
        pictures += [replace(one, title=one_line(title)) for one, title in zip(theirs, titles, strict=True)]
    limit = colour_limit(np.concatenate([one.ravel() for one in scores]))
    signed = all(one.signed for one in comparison.results)
    fonts = lettering([*parts.figure_texts(first, look.title), *(one.title for one in pictures)])
    ends = (-1.0, 1.0) if signed else (0.0, 1.0)

    def layout(page: Page) -> None:
        content = Content(
            attribution=first,
            part=target_part(first, comparison.token).label,
            pictures=pictures,
            scores=scores,
            colouring=replace(colouring, limit=limit, ends=ends),
            labels={},
            order=(),
            words=None,
            regions=frozenset(regions),
            links=(),
            reading=meaning_of_signs(first),
            scale="relative to the largest score of each" if scale == OWN else quantity_of(first),
            notes=[*_notes(comparison), *fonts.notes],
        )
        draw_content(page, content)

    return drawn(look, fonts, layout, signed=signed)


def _notes(comparison: ResultComparison) -> Sequence[str]:
    """The agreement of the rankings, in words."""
    if len(comparison.results) < 2:
        return []
    pairs = np.triu_indices(len(comparison.results), 1)
    ranks, tops = comparison.rank_correlation[pairs], comparison.top_overlap(1)[pairs]
    if len(ranks) == 1:
        agree = "They agree" if tops[0] else "They do not agree"
        return [f"Rank correlation: {two_decimals(ranks[0])}. {agree} on the feature of largest magnitude."]
    low, middle, high = map(two_decimals, (ranks.min(), np.median(ranks), ranks.max()))
    return [
        f"Rank correlation of pairs: {low} to {high}, {middle} at the median. {int(tops.sum())} of {len(tops)} pairs "
        "agree on the feature of largest magnitude."
    ]

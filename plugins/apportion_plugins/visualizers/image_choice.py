"""Content of a view of pictures: the scores that a user chose, the notes on them, and the texts in regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from apportion.errors import InputError, listing, shown
from apportion.results.attribution import Attribution
from apportion_plugins.visualizers.facts import meaning_of_signs
from apportion_plugins.visualizers.labels import ellipsis, one_line
from apportion_plugins.visualizers.look import is_between
from apportion_plugins.visualizers.numbers import DECIMALS, Numbers
from apportion_plugins.visualizers.palette import colour_limit
from apportion_plugins.visualizers.pictures import ShownPicture, pixel_scores, region_features
from apportion_plugins.visualizers.selection import check_limit, left_out, ranked
from apportion_plugins.visualizers.target_part import TargetPart

__all__ = ["ImageChoice", "border_width", "check_choice", "opacity"]

OVERLAYS = ("heat", "heat_only", "masked")
SIGNS = {"all": (-1.0, 1.0), "positive": (0.0, 1.0), "negative": (-1.0, 0.0), "absolute": (0.0, 1.0)}
"""Least and greatest strength on the scale of each choice of signs."""
LABELS = ("scores", "names", "numbers")
NAME_COLUMNS = 24
BORDER = 0.5
"""Usual width of borders in points."""
POINTS = 0.75
"""Points of a pixel of 1/96 inch."""
WIDEST = 100
"""Pixels of the widest borders."""
_SAID = {
    ("heat", "positive"): "Scores below 0 have the colour of 0 (sign='positive').",
    ("heat", "negative"): "Scores above 0 have the colour of 0 (sign='negative').",
    ("masked", "positive"): "The lower the score, the darker the picture; scores below 0 are as dark as 0.",
    ("masked", "negative"): "The nearer to 0 the score, the darker the picture; scores above 0 are as dark as 0.",
    ("masked", "absolute"): "The smaller the magnitude of the score, the darker the picture.",
}


class ImageChoice:
    """The scores that a view shows.

    Args:
        attribution: the result.
        part: the part of the target.
        pictures: the pictures.
        sign: the signs that count.
        top: number of regions that count; ``None`` for all.
        words: the words are shown, too.

    Raises:
        InputError: ``top`` is not a positive whole number.
    """

    def __init__(
        self,
        attribution: Attribution,
        part: TargetPart,
        pictures: Sequence[ShownPicture],
        sign: str,
        top: int | None,
        words: bool,
    ) -> None:
        check_limit("top", top)
        self._attribution, self._part, self._pictures, self._sign = attribution, part, pictures, sign
        self.regions = sorted({feature for picture in pictures for feature in picture.masks})
        """Features that are regions of the pictures."""
        others = set(range(len(attribution.features))) - region_features(attribution)
        self.words = sorted(others) if words else []
        """Features that are words, if these are shown."""
        self.values = _of_sign(part.values, sign)
        """The score of each feature; 0 for those whose sign does not count."""
        own = self.values[self.regions]
        self._places = ranked(own)[:top]
        self.order = [self.regions[place] for place in self._places]
        """Regions that count, the largest first."""
        self.scores = [_of_sign(pixel_scores(picture, part.values, self.order), sign) for picture in pictures]
        """The score of each pixel of each picture; NaN for none."""
        everything = [self.values[self.words], *(scores.ravel() for scores in self.scores)]
        self.limit = colour_limit(np.concatenate(everything))
        """Magnitude with the strongest colour."""

    @property
    def visible(self) -> list[int]:
        """Regions that have pixels."""
        return sorted(feature for picture in self._pictures for feature in picture.points)

    @property
    def ends(self) -> tuple[float, float]:
        """Least and greatest strength on the scale of colours."""
        return SIGNS[self._sign if self._attribution.signed else "absolute"]

    @property
    def reading(self) -> str:
        """The meaning of signs."""
        return meaning_of_signs(
            replace(self._attribution, signed=self._attribution.signed and self._sign != "absolute")
        )

    def labels(self, kind: object) -> dict[int, str]:
        """Texts to write in the regions that count, by the number of the feature.

        Raises:
            InputError: there is no such kind of labels.
        """
        if kind is False or kind is None:
            return {}
        if not isinstance(kind, str) or kind not in LABELS:
            raise InputError(f"labels={shown(kind)} must be 'scores', 'names', 'numbers', or False for none.")
        if kind == "scores":
            numbers = Numbers(self._part.values[self.regions], decimals=DECIMALS, signed=self._attribution.signed)
            return {feature: numbers.signed(float(self._part.values[feature])) for feature in self.order}
        if kind == "names":
            names = self._attribution.feature_names
            return {feature: ellipsis(one_line(names[feature]), NAME_COLUMNS) for feature in self.order}
        return {feature: str(feature) for feature in self.order}

    def notes(self, overlay: str) -> list[str]:
        """Notes on what the figure shows."""
        said = _SAID.get(("masked" if overlay == "masked" else "heat", self._sign))
        own = self.values[self.regions]
        unknown = int(np.isnan(own).sum())
        overlap = any(picture.overlap for picture in self._pictures)
        return [
            *([said] if said else []),
            *left_out(own, self._places, "regions", "top"),
            *(["Where regions overlap, the sum of their scores is shown."] if overlap else []),
            *([f"{unknown} of {len(own)} regions have no score, and no colour."] if unknown else []),
            *self._unknown_pictures(),
            *self._other_pictures(),
        ]

    def _other_pictures(self) -> list[str]:
        other = [picture.title for picture in self._pictures if picture.is_other]
        if len(self._pictures) == 1 and other:
            return ["This is not the picture that was attributed to: its pixels differ."]
        return [f"Not the pictures that were attributed to, because pixels differ: {listing(other)}."] if other else []

    def _unknown_pictures(self) -> list[str]:
        blank = [picture for picture in self._pictures if picture.pixels is None]
        if not blank:
            return []
        which = "the picture" if len(self._pictures) == 1 else "some pictures" if self._some_known() else "the pictures"
        return [
            f"The result was saved without the pixels of {which}: only regions are drawn. Give images= to draw on "
            f"{'it' if len(self._pictures) == 1 else 'them'}, or save results with pixels=True."
        ]

    def _some_known(self) -> bool:
        return any(picture.pixels is not None for picture in self._pictures)


def check_choice(attribution: Attribution, overlay: object, sign: object) -> str:
    """Check two options, and give the signs that count.

    Raises:
        InputError: there is no such overlay or choice of signs, or the values have no signs.
    """
    if not isinstance(overlay, str) or overlay not in OVERLAYS:
        raise InputError(f"overlay={shown(overlay)} must be 'heat', 'heat_only' or 'masked'.")
    if not isinstance(sign, str) or sign not in SIGNS:
        raise InputError(f"sign={shown(sign)} must be 'all', 'positive', 'negative' or 'absolute'.")
    if not attribution.signed and sign in ("positive", "negative"):
        raise InputError(
            f"sign={shown(sign)}: the values of this result are magnitudes, without signs. Leave out sign=."
        )
    if sign == "all" and overlay == "masked":
        return "positive" if attribution.signed else "absolute"
    return sign


def opacity(alpha: float) -> float:
    """Check the opacity of colours.

    Raises:
        InputError: it is not a number from 0 to 1.
    """
    if not is_between(alpha, 0.0, 1.0):
        raise InputError(f"alpha={shown(alpha)} must be a number from 0 (the picture alone) to 1 (the colours alone).")
    return float(alpha)


def border_width(borders: bool | float) -> float:
    """Width of borders in points; 0 for none.

    Raises:
        InputError: it is neither a width nor ``True`` or ``False``.
    """
    if isinstance(borders, bool):
        return BORDER if borders else 0.0
    if not is_between(borders, 0.0, WIDEST):
        raise InputError(
            f"borders={shown(borders)} must be True, False, or a width in pixels of 1/96 inch, at most {WIDEST}."
        )
    return POINTS * float(borders)


def _of_sign(values: Float64[np.ndarray, "*shape"], sign: str) -> Float64[np.ndarray, "*shape"]:
    """Values of one sign, the others as 0, or the magnitudes of all; NaN stays NaN."""
    if sign == "absolute":
        magnitudes: np.ndarray = np.abs(values)
        return magnitudes
    low, high = SIGNS[sign]
    kept: np.ndarray = np.clip(values, -np.inf if low else 0.0, np.inf if high else 0.0)
    return kept

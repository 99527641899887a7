"""Deletion and insertion curves, and the area between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.options import whole_number
from apportion.protocols.metrics import Measurement
from apportion_plugins.metrics.ranking import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from apportion.results.evaluation import Evaluation

__all__ = ["AreaBetween", "Deletion", "Insertion"]

NO_CHANGE = 1e-9


class _AlongRanking:
    """Scores along the ranking, at evenly spaced numbers of features; subclasses turn them into a measurement."""

    def measure(
        self, game: Game, values: Float[Tensor, " F"], *, rng: torch.Generator, steps: int = 100
    ) -> Measurement:
        """Measure from no features to all of them, along the ranking.

        Args:
            game: scores coalitions.
            values: one score for each feature.
            rng: unused, because nothing is drawn.
            steps: maximum number of points after the first; each takes about one evaluation.

        Raises:
            InputError: ``steps`` is below 1.
        """
        return self._measured(game, Ranking.of(values), _counts(game.n_features, steps))

    def _measured(self, game: Game, ranking: Ranking, counts: Sequence[int]) -> Measurement:
        raise NotImplementedError


class _Curve(_AlongRanking):
    """A metric that is the area under one curve, to be compared with those of random orders."""

    yardstick = True

    def plot(
        self,
        evaluations: Sequence[Evaluation],
        *,
        title: str | None = "auto",
        labels: str = "full",
        size: Sequence[float | None] | None = None,
        dpi: float | None = None,
    ) -> Figure:
        """Plot the deletion and insertion curves, whichever were measured.

        Args:
            evaluations: evaluations of the same target.
            title: text above the figure; ``"auto"`` for method and target, ``None`` for none.
            labels: ``"full"``, or ``"short"`` for a legend without the areas.
            size: width and height in inches, such as ``(3.3, 4)``; ``None``, also for one, for what is needed.
            dpi: dots per inch of images; ``None`` for matplotlib's setting.

        Raises:
            InputError: an option is out of range, or the curves do not fit ``size``.
        """
        from apportion_plugins.visualizers.curves import curves
        from apportion_plugins.visualizers.look import Look

        return curves(evaluations, Look(title, labels, size, dpi))


class Deletion(_Curve):
    """Area under the score while features are removed, the highest first (RISE, Petsiuk et al. 2018, arXiv 1806.07421).

    The mean of v(N without the k highest) − v(∅) over the share k/F of features removed, by the trapezoidal rule, in
    the unit of the score. Lower is better: with a faithful ranking, the score drops early. It takes F + 1 evaluations,
    or about ``steps`` + 1 if there are more features than steps.

    RISE uses probabilities, which have a natural zero. Here the score without features serves as zero, so adding a
    constant to all scores changes nothing. The area is not divided by v(N) − v(∅), which may be 0 or negative (and
    would then reverse the direction). Compare values for the same prompt, or use ``normalised`` in the extras.

    Removing the lowest first is ``insertion`` in reverse, and needs no further evaluations.
    """

    higher_is_better = False

    def _measured(self, game: Game, ranking: Ranking, counts: Sequence[int]) -> Measurement:
        scores, _ = ranking.scores(game, without=counts)
        return _area_under(counts, scores, empty=scores[-1], full=scores[0])


class Insertion(_Curve):
    """Area under the score while features are added, the highest first (RISE, Petsiuk et al. 2018, arXiv 1806.07421).

    The mean of v(the k highest) − v(∅) over the share k/F of features added, by the trapezoidal rule, in the unit of
    the score. Higher is better: with a faithful ranking, the score rises early. As in ``deletion``, the score without
    features serves as zero, and the area is not divided by v(N) − v(∅). It takes as many evaluations as ``deletion``,
    and shares two of them.
    """

    higher_is_better = True

    def _measured(self, game: Game, ranking: Ranking, counts: Sequence[int]) -> Measurement:
        _, scores = ranking.scores(game, only=counts)
        return _area_under(counts, scores, empty=scores[0], full=scores[-1])


class AreaBetween(_AlongRanking):
    """Area between the curves of removing the lowest and the highest features first (after Samek et al. 2017).

    Removing the lowest first is adding the highest first in reverse, so this is ``insertion`` − ``deletion`` and uses
    their evaluations. In the unit of the score. Higher is better; 0 is no better than a random order.
    """

    higher_is_better = True

    def _measured(self, game: Game, ranking: Ranking, counts: Sequence[int]) -> Measurement:
        removed, added = ranking.scores(game, without=counts, only=counts)
        between = _area(counts, added) - _area(counts, removed)
        change = float(removed[0] - added[0])
        return Measurement(between, extras={"change": change} | _normalised(between, change))


def _counts(n_features: int, steps: int) -> list[int]:
    """Numbers of features from none to all, evenly spaced."""
    steps = min(whole_number("steps", steps, least=1), n_features)
    return [(2 * n_features * step + steps) // (2 * steps) for step in range(steps + 1)]


def _area(counts: Sequence[int], scores: Float[Tensor, " C"]) -> float:
    # Relative to the first score, so that a large common constant costs no precision.
    share = torch.tensor(counts, dtype=torch.float64) / counts[-1]
    return float(torch.trapezoid(scores - scores[0], share) + scores[0])


def _area_under(counts: Sequence[int], scores: Float[Tensor, " C"], empty: Tensor, full: Tensor) -> Measurement:
    area, change = _area(counts, scores - empty), float(full - empty)
    shares = [count / counts[-1] for count in counts]
    curve: dict[str, Any] = {"shares": shares, "scores": scores.tolist(), "change": change}
    return Measurement(area, extras=curve | _normalised(area, change))


def _normalised(area: float, change: float) -> dict[str, float]:
    """The area as a share of v(N) − v(∅); omitted if the features together do not raise the score."""
    return {"normalised": area / change} if change > NO_CHANGE else {}

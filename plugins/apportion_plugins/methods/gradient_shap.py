"""GradientSHAP: gradients at random points between random baselines and the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, shown
from apportion.game.game import Game
from apportion.options import true_or_false, whole_number
from apportion.protocols.backend import Capability
from apportion.protocols.inside import Inside
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.baselines import Baseline, check_baseline, embedded_baseline
from apportion_plugins.methods.bootstrap import replicates_of
from apportion_plugins.methods.points import Points, check_budget
from apportion_plugins.methods.spread import error_of_mean, moves_of_mean
from apportion_plugins.methods.token_scores import Summary

__all__ = ["GradientShap", "errors_of"]

RANDOM = "random"
"""Name of baselines of which each token is drawn from the vocabulary."""


class GradientShap:
    """Expected gradients (Lundberg and Lee 2017; Erion et al. 2021), as Captum's GradientShap: the mean of gradients at
    random points on the way from random baselines to the prompt, each times the difference of the two.

    The embeddings of all features move together; all other tokens keep their own. In expectation, values add up to the
    score of the prompt minus the mean score of the baselines. Positive values raise the score; they are in its unit.
    """

    estimand = "expected gradients"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass per sample; one backward pass per sample and output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        baseline: Baseline | Sequence[Baseline] = RANDOM,
        n_samples: int = 50,
        stdevs: float = 0.0,
        whole_prompt: bool = False,
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation per sample, with one backward pass per output; standard errors come from their spread.

        Standard errors are unknown if ``aggregate`` is neither ``"sum"`` nor ``"mean"``.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; ``n_samples`` are needed.
            rng: draws baselines, points and noise.
            baseline: ``"random"`` for tokens drawn from the vocabulary, a new one for each token and sample; a baseline
                as in ``integrated_gradients``; or a list of these, from which each sample draws one.
            n_samples: number of samples.
            stdevs: standard deviation of normal noise that is added to the prompt's embeddings, in their unit.
            whole_prompt: replace all tokens of the prompt, as Captum and Inseq do, those of no feature included.
            aggregate: makes one number of all scores, for all tokens and dimensions of a feature together; see
                ``saliency``.
            normalize: what values are divided by; see ``saliency``.
            keep_dims: keep the scores' dimensions in ``extras``: ``dims`` and ``token_dims``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown or out of range, or the tokenizer has no such baseline.
            BudgetError: the budget is smaller than the number of samples.
        """
        summary, tokens = Summary(aggregate, normalize, keep_dims), true_or_false("per_token", per_token)
        whole, baselines = true_or_false("whole_prompt", whole_prompt), _checked_baselines(baseline)
        count, noise = whole_number("n_samples", n_samples, least=1), _checked_noise(stdevs)
        check_budget(budget, count, f"GradientSHAP with {count} samples", "use fewer samples")
        inside = game.inside()
        points = Points(inside, whole=whole)
        draws = _Draws(inside, points, baselines, noise, rng, whole=whole)
        mean, samples = torch.zeros_like(points.own), []
        for part in points.parts(count):
            drawn = [draws() for _ in range(part.start, part.stop)]
            slopes = points.gradients(torch.stack([one.point for one in drawn]), tokens=tokens)
            products = slopes.gradients * torch.stack([one.path for one in drawn])
            mean = mean + products.sum(1) / count
            if summary.aggregator.linear:
                samples += [summary.values(points.scores(one), inside, game.n_features) for one in products.unbind(1)]
        return summary.estimate(
            points.scores(mean),
            inside,
            n_features=game.n_features,
            n_outputs=game.n_outputs,
            estimand=self.estimand,
            **errors_of(samples, game, outputs=len(mean)),
        )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A point, and the difference between the prompt, with noise, and the baseline."""

    point: Float[Tensor, "X D"]
    path: Float[Tensor, "X D"]


class _Draws:
    """Draws a baseline, the noise, and a point between the two, in this order."""

    def __init__(
        self,
        inside: Inside,
        points: Points,
        baselines: Sequence[Baseline],
        noise: float,
        rng: torch.Generator,
        *,
        whole: bool,
    ) -> None:
        self._inside, self._own, self._noise, self._rng = inside, points.own, noise, rng
        self._moving = torch.ones_like(points.of_features) if whole else points.of_features
        self._baselines = [
            None if isinstance(one, str) and one == RANDOM else embedded_baseline(inside, points, one)
            for one in baselines
        ]

    def __call__(self) -> _Drawn:
        own, moving = self._own, self._moving[:, None]
        start = self._baseline()
        end = own + self._noise * self._normal() if self._noise else own
        path = torch.where(moving, end - start, 0.0)
        place = float(torch.rand((), generator=self._rng, dtype=torch.float64))
        return _Drawn(torch.where(moving, start + place * path, own), path)

    def _baseline(self) -> Float[Tensor, "X D"]:
        choice = 0
        if len(self._baselines) > 1:
            choice = int(torch.randint(len(self._baselines), (), generator=self._rng))
        chosen = self._baselines[choice]
        if chosen is not None:
            return chosen
        drawn = torch.randint(self._inside.vocabulary, (len(self._own),), generator=self._rng)
        return self._inside.embeddings(drawn.tolist()).to(self._own)

    def _normal(self) -> Float[Tensor, "X D"]:
        return torch.randn(self._own.shape, generator=self._rng, dtype=torch.float64).to(self._own)


def errors_of(samples: Sequence[Float[Tensor, "F O"]], game: Game, *, outputs: int) -> dict[str, Any]:
    """Standard errors and replicates, from the values of each sample if there are any."""
    if not samples:
        return {"std_error": torch.full((game.n_features, outputs), torch.nan, dtype=torch.float64)}
    spread = torch.stack(list(samples))
    found: dict[str, Any] = {"std_error": error_of_mean(spread)}
    if len(samples) > 1:
        found["replicates"] = replicates_of(spread[:, :, 0].mean(0), moves_of_mean(spread[:, :, 0]))
    return found


def _checked_baselines(given: object) -> Sequence[Baseline]:
    """The baselines to draw from.

    Raises:
        InputError: there are none, or one is neither a name, nor a token, nor embeddings.
    """
    found: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    if not found:
        raise InputError("baseline=[] must have at least one baseline.")
    for one in found:
        check_baseline(one)
    return found


def _checked_noise(stdevs: object) -> float:
    if isinstance(stdevs, bool) or not isinstance(stdevs, int | float) or not 0 <= stdevs < float("inf"):
        raise InputError(f"stdevs={shown(stdevs)} must be a number of at least 0.")
    return float(stdevs)

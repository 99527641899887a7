"""Gradients at random points between what modules return or read for a baseline and for the prompt."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.game.game import Game
from apportion.options import true_or_false, whole_number
from apportion.protocols.backend import Capability
from apportion.protocols.inside import Side
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.baselines import Baseline, check_baseline
from apportion_plugins.methods.gradient_shap import errors_of
from apportion_plugins.methods.layer_path import Ends, Pair
from apportion_plugins.methods.layer_scores import LayerScores, LayerSettings, estimate
from apportion_plugins.methods.module_names import Layers
from apportion_plugins.methods.points import check_budget
from apportion_plugins.methods.token_scores import Summary

__all__ = ["LayerGradientShap"]


class LayerGradientShap:
    """Gradient SHAP of what modules return or read, at the positions of each feature (Captum's ``GradientShap`` at a
    layer; Lundberg and Lee 2017).

    The mean, over random points on the straight line between what a module returns for the baseline and for the prompt,
    of the gradient times the difference of the two. It estimates ``layer_integrated_gradients``, with standard errors,
    and modules move together or alone as there. Captum's ``LayerGradientShap`` scores the wrong target tokens, so there
    is nothing to compare it with. A value is the sum over all modules.

    ``extras`` has ``modules``, ``module_values`` (M × F), ``module_token_values`` (M × T × F) and ``target_positions``,
    the sum of the scores at target positions.

    Positive values raise the score; they are in its unit.
    """

    estimand = "layer integrated gradients"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass per sample and two more; one backward pass per sample and output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        layers: Layers = None,
        at: Side = "output",
        joint: bool = True,
        baseline: Baseline = "mean",
        n_samples: int = 50,
        whole_prompt: bool = False,
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation per sample, with one backward pass per output, and two more.

        ``extras`` gets ``modules``, ``module_values``, ``module_token_values`` and ``target_positions``; see
        ``layer_integrated_gradients``.

        Standard errors come from the spread of the samples; with aggregators other than ``"sum"`` and ``"mean"`` they
        are unknown.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; ``n_samples`` + 2 are needed; with ``joint=False``, ``n_samples`` for
                each module, and 2 more.
            rng: draws the points.
            layers: names of modules; see ``layer_integrated_gradients``.
            at: what of a module is scored: what it returns (``"output"``) or what it reads (``"input"``).
            joint: move all modules together; else one after the other, which takes samples for each.
            baseline: what replaces the tokens in the baseline; see ``integrated_gradients``.
            n_samples: number of random points.
            whole_prompt: replace all tokens of the prompt, as Captum and Inseq do, those of no feature included.
            aggregate: makes one number of all scores; see ``layer_integrated_gradients``.
            normalize: what values are divided by; those of modules are not.
            keep_dims: keep the dimensions in ``extras``; see ``layer_integrated_gradients``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown, no module has such a name, or a module has no positions.
            BudgetError: the budget is smaller.
        """
        settings = LayerSettings.checked(layers, at, Summary(aggregate, normalize, keep_dims))
        tokens, whole = true_or_false("per_token", per_token), true_or_false("whole_prompt", whole_prompt)
        together, samples = true_or_false("joint", joint), whole_number("n_samples", n_samples, least=1)
        check_baseline(baseline)
        inside = game.inside()
        chosen = settings.chosen(inside)
        count = 1 if together else len(chosen.names)
        what = f"Layer gradient SHAP with {samples} samples" + (f" for each of {count} modules" if count > 1 else "")
        check_budget(budget, 2 + count * samples, what, "use fewer samples" + " or joint=True" * (count > 1))
        ends = Ends.read(chosen, Pair.of(inside, baseline, whole_prompt=whole))
        scores = ends.scores(whole=settings.whole)
        drawn = _Drawn(settings, scores, game.n_features, samples)
        for part in [ends] if together else [ends.only(name) for name in chosen.names]:
            drawn.add(part, torch.rand(samples, generator=rng, dtype=torch.float64), tokens=tokens)
        return estimate(
            scores,
            settings.summary,
            game,
            estimand=self.estimand,
            full_value=float(ends.values[0, 0]),
            notes=scores.idle_notes(),
            **drawn.errors(game),
        )


class _Drawn:
    """Values of each sample, for their spread."""

    def __init__(self, settings: LayerSettings, scores: LayerScores, n_features: int, samples: int) -> None:
        self._settings, self._scores = settings, scores
        self._n_features = n_features
        self._samples: list[Float[Tensor, "F O"] | float] = [0.0] * samples

    def add(self, ends: Ends, shares: Float[Tensor, " S"], *, tokens: bool) -> None:
        """Add the scores of some modules at random points, one for each sample."""
        summary, weight = self._settings.summary, torch.tensor([1 / len(shares)], dtype=torch.float64)
        for piece, found in ends.along(shares, tokens=tokens):
            for row, sample in enumerate(range(piece.start, piece.stop)):
                gradients = [{name: one[:, row : row + 1] for name, one in part.items()} for part in found.gradients]
                self._scores.add(gradients, weight)
                one = ends.scores(whole=self._settings.whole)
                one.add(gradients, torch.ones(1))
                self._samples[sample] += summary.values(one.all(), ends.chosen.inside, self._n_features)

    def errors(self, game: Game) -> dict[str, Any]:
        """Standard errors and replicates; unknown if the values are not the means of the samples'."""
        found = [one for one in self._samples if isinstance(one, Tensor)]
        return errors_of(found if self._settings.summary.aggregator.linear else [], game, outputs=found[0].shape[1])

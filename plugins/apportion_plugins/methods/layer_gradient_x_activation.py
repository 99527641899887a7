"""Gradients times what modules return or read."""

from __future__ import annotations

import torch

from apportion.game.game import Game
from apportion.options import true_or_false
from apportion.protocols.backend import Capability
from apportion.protocols.inside import Side
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.layer_scores import LayerScores, LayerSettings, estimate
from apportion_plugins.methods.module_names import Layers
from apportion_plugins.methods.points import check_budget, check_not_stationary
from apportion_plugins.methods.token_scores import Summary

__all__ = ["LayerGradientXActivation"]


class LayerGradientXActivation:
    """Gradient of the score times what modules return or read, at the positions of each feature (Captum's
    ``LayerGradientXActivation``).

    A first-order estimate of what setting the activations to zero takes from the score. The gradient of a module takes
    all ways to the score, also those through later modules that are named, so the scores of several modules count some
    effects more than once. A value is the sum over all modules.

    ``extras`` has ``modules``, ``module_values`` (M × F), ``module_token_values`` (M × T × F) and ``target_positions``,
    the sum of the scores at target positions.

    Positive values raise the score; they are in its unit.
    """

    estimand = "layer gradient × activation"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass; one backward pass per output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        layers: Layers = None,
        at: Side = "output",
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation for all modules, with one backward pass per output.

        ``extras`` gets ``modules``, ``module_values``, ``module_token_values`` and ``target_positions``; see
        ``layer_integrated_gradients``.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; 1 is needed.
            rng: unused, because nothing is drawn.
            layers: names of modules; see ``layer_integrated_gradients``.
            at: what of a module is scored: what it returns (``"output"``) or what it reads (``"input"``).
            aggregate: makes one number of all scores; see ``layer_integrated_gradients``.
            normalize: what values are divided by; those of modules are not.
            keep_dims: keep the dimensions in ``extras``; see ``layer_integrated_gradients``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown, no module has such a name, or a module has no positions.
        """
        settings = LayerSettings.checked(layers, at, Summary(aggregate, normalize, keep_dims))
        tokens = true_or_false("per_token", per_token)
        check_budget(budget, 1, "Layer gradient × activation", "use another method")
        inside = game.inside()
        check_not_stationary(inside)
        chosen = settings.chosen(inside)
        found = chosen.gradients(inside.embeddings()[None], tokens=tokens)
        own = [{name: one[0] for name, one in part.items()} for part in found.activations]
        scores = LayerScores(chosen, own, settings.whole)
        scores.add(found.gradients, torch.ones(1))
        return estimate(scores, settings.summary, game, estimand=self.estimand, full_value=float(found.values[0, 0]))

"""Gradients at the prompt itself."""

from __future__ import annotations

import torch

from apportion.game.game import Game
from apportion.options import true_or_false
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.points import Points, check_not_stationary
from apportion_plugins.methods.token_scores import Summary

__all__ = ["InputXGradient", "Saliency"]


class Saliency:
    """Norm of the gradient of the score with respect to the embeddings of each feature (Simonyan et al. 2014).

    How much the score changes if the embeddings move a little, in the direction in which it changes most. A norm has no
    sign. With ``aggregate="sum"``, values are signed: the sum of the partial derivatives.

    Values are in the unit of the score per unit of the embeddings.
    """

    estimand = "gradient norm"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass; one backward pass per output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        aggregate: str = "l2",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation, with one backward pass per output.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; 1 is used.
            rng: unused, because nothing is drawn.
            aggregate: makes one number of the gradient's entries, for all tokens and dimensions of a feature together:
                ``"l2"`` for their norm, ``"sum"``, ``"mean"``, ``"max"`` (the largest in magnitude, with its sign),
                ``"abs_sum"``, ``"abs_mean"`` or ``"abs_max"``.
            normalize: ``"none"``; ``"features"`` to divide by the sum of the features' magnitudes; ``"all"`` to count
                tokens without a feature in this sum.
            keep_dims: keep the gradient's dimensions in ``extras``: ``dims`` and ``token_dims``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown.
        """
        summary, tokens = Summary(aggregate, normalize, keep_dims), true_or_false("per_token", per_token)
        return _at_the_prompt(game, summary, tokens=tokens, times_input=False)


class InputXGradient:
    """Gradient of the score times the embeddings, summed over the tokens and dimensions of each feature.

    A first-order estimate of what setting the embeddings to zero takes from the score (Shrikumar et al. 2016). Positive
    values raise the score; they are in its unit.
    """

    estimand = "input × gradient"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass; one backward pass per output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation, with one backward pass per output.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; 1 is used.
            rng: unused, because nothing is drawn.
            aggregate: makes one number of all products, for all tokens and dimensions of a feature together; see
                ``saliency``.
            normalize: what values are divided by; see ``saliency``.
            keep_dims: keep the products' dimensions in ``extras``: ``dims`` and ``token_dims``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown.
        """
        summary, tokens = Summary(aggregate, normalize, keep_dims), true_or_false("per_token", per_token)
        return _at_the_prompt(game, summary, tokens=tokens, times_input=True)


def _at_the_prompt(game: Game, summary: Summary, *, tokens: bool, times_input: bool) -> Estimate:
    inside = game.inside()
    check_not_stationary(inside)
    points = Points(inside, whole=True)
    found = points.gradients(points.own[None], tokens=tokens)
    gradients = found.gradients[:, 0]
    return summary.estimate(
        points.scores(gradients * points.own if times_input else gradients),
        inside,
        n_features=game.n_features,
        n_outputs=game.n_outputs,
        estimand="input × gradient" if times_input else "gradient",
        unit=None if times_input else f"{inside.unit} per unit",
        full_value=float(found.values[0, 0]),
    )

"""A short white-box method, for testing access to a model's internals."""

from __future__ import annotations

import torch

from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate

__all__ = ["GradientTimesInput"]


class GradientTimesInput:
    """Gradient × input: the gradient at the prompt's embeddings times these, summed over each feature's tokens."""

    estimand, requires = "gradient × input", frozenset({Capability.GRADIENTS})

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        """Run one evaluation, and one backward pass per output."""
        inside = game.inside()
        point = inside.embeddings()[None].requires_grad_()
        values = inside.values(point)[0]
        found = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
        for output, value in enumerate(values):
            (gradient,) = torch.autograd.grad(value, point, retain_graph=True)
            for feature, score in zip(inside.feature_of, (gradient * point)[0].sum(-1).tolist(), strict=True):
                if feature is not None:
                    found[feature, output] += score
        return Estimate(found)

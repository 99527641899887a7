"""A short white-box method, for testing access to a model's internals."""

from __future__ import annotations

import torch

from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate

__all__ = ["GradientTimesInput"]


class GradientTimesInput:
    """Gradient × input: the gradient at the embeddings times these, summed over each feature's tokens."""

    estimand, requires = "gradient × input", frozenset({Capability.GRADIENTS})

    def run(self, game: Game, *, budget: int | None, rng: torch.Generator) -> Estimate:
        """Run one evaluation, and one backward pass per output."""
        inside = game.inside()
        point, after = inside.embeddings(), inside.following()
        slopes = inside.gradients(point[None], following=after[None])
        assert slopes.generated is not None
        parts = [(slopes.prompt[:, 0] * point).sum(-1), (slopes.generated[:, 0] * after).sum(-1)]
        scores = torch.cat(parts, dim=1).double().cpu()  # Float[K, P + N]
        found = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
        for place, feature in enumerate((*inside.feature_of, *inside.generated_feature_of)):
            if feature is not None:
                found[feature] += scores[:, place]
        return Estimate(found)

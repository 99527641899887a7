"""Sequential integrated gradients: one path for each feature, on which all others stay as they are."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apportion.game.game import Game
from apportion.game.integration import checked_rule, nodes
from apportion.options import true_or_false
from apportion.protocols.backend import Capability
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.baselines import Baseline, check_baseline, embedded_baseline
from apportion_plugins.methods.completeness import Completeness, advice
from apportion_plugins.methods.points import Points, check_budget
from apportion_plugins.methods.token_scores import Summary

__all__ = ["SequentialIntegratedGradients"]


class SequentialIntegratedGradients:
    """Sequential integrated gradients (Enguehard 2023, ACL Findings 2023 477): integrated gradients of one feature at a
    time, while all other tokens keep their embeddings.

    No point on a path is far from the prompt, as those between a prompt and a baseline of all its tokens are. The value
    of a feature is what the score loses if its tokens alone are replaced by the baseline; ``convergence_delta`` in
    ``extras`` says by how much it misses this. Values of several features do not add up to anything. Positive values
    raise the score; they are in its unit.
    """

    estimand = "sequential integrated gradients"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass per feature and step, and one per feature; one backward pass per feature, step and output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        baseline: Baseline = "mean",
        steps: int = 20,
        rule: str = "gausslegendre",
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation per feature and step, with one backward pass per output, one per feature, and one.

        ``extras`` gets ``convergence_delta``, the sum of a feature's scores minus the loss of score without it, and
        ``baseline_value``, the score without it, both Float[F, O]: of the whole target, then of each token.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; F · (steps + 1) + 1 are needed.
            rng: unused, because nothing is drawn.
            baseline: start of each path; see ``integrated_gradients``.
            steps: number of points on the path of each feature.
            rule: where they are, and their weights; see ``integrated_gradients``.
            aggregate: makes one number of all scores, for all tokens and dimensions of a feature together; see
                ``saliency``.
            normalize: what values are divided by; see ``saliency``.
            keep_dims: keep the scores' dimensions in ``extras``: ``dims`` and ``token_dims``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown, or the tokenizer has no such baseline.
            BudgetError: the budget is smaller.
        """
        summary, tokens = Summary(aggregate, normalize, keep_dims), true_or_false("per_token", per_token)
        steps, n = checked_rule(rule, steps), game.n_features
        check_baseline(baseline)
        needed = n * (steps + 1) + 1
        check_budget(budget, needed, f"Integrated gradients of {n} features in {steps} steps each", "use fewer steps")
        inside = game.inside()
        points = Points(inside, whole=False)
        owners = torch.tensor([-1 if owner is None else owner for owner in points.owners], device=points.own.device)
        belongs = owners == torch.arange(n, device=points.own.device)[:, None]
        path = points.own - embedded_baseline(inside, points, baseline)
        without = points.values(torch.cat([points.own[None], points.own - belongs[:, :, None] * path]))
        found = _along(points, path, belongs, rule, steps, tokens=tokens)
        sums = torch.stack([found[:, own].sum((1, 2)) for own in belongs])
        complete = Completeness(sums, without[1:], without[0])
        return summary.estimate(
            points.scores(found),
            inside,
            n_features=n,
            n_outputs=game.n_outputs,
            estimand=self.estimand,
            full_value=float(without[0, 0]),
            extras=complete.extras(),
            notes=complete.notes(advice(steps)),
        )


def _along(
    points: Points,
    path: Float[Tensor, "X D"],
    belongs: Bool[Tensor, "F X"],
    rule: str,
    steps: int,
    *,
    tokens: bool,
) -> Float[Tensor, "O X D"]:
    """For the tokens of each feature, the mean gradient along its path, times the path's length."""
    places, weights = nodes(rule, steps, path)
    total: Tensor | None = None
    for part in points.parts(len(belongs) * steps):
        rows = torch.arange(part.start, part.stop, device=path.device)
        moving, step = belongs[rows // steps].to(path.dtype), rows % steps
        left = (1 - places[step])[:, None, None] * moving[:, :, None]
        slopes = points.gradients(points.own - left * path, tokens=tokens)
        found = torch.einsum("obxd,bx->oxd", slopes.gradients, weights[step, None] * moving)
        total = found if total is None else total + found
    assert total is not None, "there is at least one feature"
    return total * path

"""Integrated gradients: gradients along the straight path from a baseline to the prompt."""

from __future__ import annotations

import torch
from jaxtyping import Float
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

__all__ = ["IntegratedGradients"]


class IntegratedGradients:
    """Integrated gradients (Sundararajan et al. 2017): the mean gradient between a baseline and the prompt, times the
    difference of the two, summed over the tokens and dimensions of each feature.

    The embeddings of all features move from the baseline to their own in a straight line. All other tokens, such as the
    start token and a template's fixed text, keep their embeddings. Values add up to the change of the score from the
    baseline to the prompt; ``convergence_delta`` in ``extras`` says by how much they miss it. Positive values raise the
    score; they are in its unit.
    """

    estimand = "integrated gradients"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass per step and two more; one backward pass per step and output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        baseline: Baseline = "mean",
        steps: int = 50,
        rule: str = "gausslegendre",
        whole_prompt: bool = False,
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation per step, with one backward pass per output, and one at each end of the path.

        ``extras`` gets ``convergence_delta``, the sum of all scores minus the change of the score, and
        ``baseline_value``, the score at the baseline: of the whole target, then of each token.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; steps + 2 are needed.
            rng: unused, because nothing is drawn.
            baseline: start of the path: ``"zero"``, ``"mean"`` for the mean embedding of the vocabulary, ``"pad"``,
                ``"unk"``, the text or the id of one token, or embeddings, Float[D] or one row per token of the prompt.
            steps: number of points on the path.
            rule: where they are, and their weights: ``"gausslegendre"``, ``"riemann_trapezoid"``,
                ``"riemann_middle"``, ``"riemann_left"`` or ``"riemann_right"``.
            whole_prompt: replace all tokens of the prompt, as Captum and Inseq do, those of no feature included.
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
        whole, steps = true_or_false("whole_prompt", whole_prompt), checked_rule(rule, steps)
        check_baseline(baseline)
        check_budget(budget, steps + 2, f"Integrated gradients in {steps} steps", "use fewer steps")
        inside = game.inside()
        points = Points(inside, whole=whole)
        moving = torch.ones_like(points.of_features) if whole else points.of_features
        start = torch.where(moving[:, None], embedded_baseline(inside, points, baseline), points.own)
        ends = points.values(torch.stack([start, points.own]))
        found = _along(points, start, rule, steps, tokens=tokens)
        complete = Completeness(found.sum((1, 2)), *ends)
        return summary.estimate(
            points.scores(found),
            inside,
            n_features=game.n_features,
            n_outputs=game.n_outputs,
            estimand=self.estimand,
            full_value=float(ends[1, 0]),
            extras=complete.extras(),
            notes=complete.notes(advice(steps)),
        )


def _along(
    points: Points, start: Float[Tensor, "X D"], rule: str, steps: int, *, tokens: bool
) -> Float[Tensor, "O X D"]:
    """Mean gradient along the straight path, times its length."""
    path = points.own - start
    places, weights = nodes(rule, steps, start)
    total: Tensor | None = None
    for part in points.parts(steps):
        slopes = points.gradients(start + places[part, None, None] * path, tokens=tokens)
        found = torch.einsum("obxd,b->oxd", slopes.gradients, weights[part])
        total = found if total is None else total + found
    assert total is not None, "there is at least one step"
    return total * path

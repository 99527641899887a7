"""Discretized integrated gradients: gradients on a path along the embeddings of other tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import shown, unknown_name
from apportion.game.game import Game
from apportion.options import true_or_false, whole_number
from apportion.protocols.backend import Capability
from apportion.protocols.inside import Inside
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.baselines import Baseline, check_baseline, embedded_baseline, is_token, token_of
from apportion_plugins.methods.completeness import Completeness, advice
from apportion_plugins.methods.points import Points, check_budget
from apportion_plugins.methods.token_scores import Summary
from apportion_plugins.methods.vocabulary_paths import STRATEGIES, VocabularyPaths

__all__ = ["DiscretizedIntegratedGradients"]


class DiscretizedIntegratedGradients:
    """Discretized integrated gradients (Sanyal and Ren 2021, arXiv 2108.13654): integrated gradients on a path whose
    points are near embeddings of tokens, because a model has never seen what is between them.

    The path of each token goes from neighbour to neighbour in the vocabulary until it ends at the baseline, and each of
    its dimensions only rises or only falls. Tokens of no feature keep their embeddings. Gradients at each point are
    multiplied with the step to the next one, so that values add up to the change of the score from the baseline to the
    prompt, if the steps are small; ``convergence_delta`` in ``extras`` says by how much they miss it. Positive values
    raise the score; they are in its unit.
    """

    estimand = "discretized integrated gradients"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass per step; one backward pass per step and output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        baseline: Baseline = "mean",
        steps: int = 30,
        strategy: str = "greedy",
        neighbors: int = 50,
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation per point of the path, with one backward pass per output except for the last point.

        ``extras`` gets ``convergence_delta``, the sum of all scores minus the change of the score, and
        ``baseline_value``, the score at the baseline: of the whole target, then of each token.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations, which are as many as the steps.
            rng: unused, because nothing is drawn.
            baseline: start of the paths, a token as a rule; see ``integrated_gradients``.
            steps: number of points on the path, both ends included.
            strategy: choice of the next token on a path: ``"greedy"`` for the one that is moved least to make the path
                monotonic, ``"maxcount"`` for the one with most monotonic dimensions.
            neighbors: number of nearest neighbours among which the next token is chosen.
            aggregate: makes one number of all scores, for all tokens and dimensions of a feature together; see
                ``saliency``.
            normalize: what values are divided by; see ``saliency``.
            keep_dims: keep the scores' dimensions in ``extras``: ``dims`` and ``token_dims``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown or out of range, or the tokenizer has no such baseline.
            BudgetError: the budget is smaller than the number of steps.
        """
        summary, tokens = Summary(aggregate, normalize, keep_dims), true_or_false("per_token", per_token)
        steps, neighbors = whole_number("steps", steps, least=2), whole_number("neighbors", neighbors, least=1)
        if not isinstance(strategy, str) or strategy not in STRATEGIES:
            raise unknown_name("strategy", strategy if isinstance(strategy, str) else shown(strategy), STRATEGIES)
        check_baseline(baseline)
        check_budget(budget, steps, f"Discretized integrated gradients in {steps} steps", "use fewer steps")
        inside = game.inside()
        points = Points(inside, whole=False)
        path = _path(inside, points, baseline, VocabularyPaths(_table(inside), neighbors, steps, strategy))
        found, start = _along(points, path, tokens=tokens)
        end = points.values(points.own[None])[0]
        complete = Completeness(found.sum((1, 2)), start, end)
        return summary.estimate(
            points.scores(found),
            inside,
            n_features=game.n_features,
            n_outputs=game.n_outputs,
            estimand=self.estimand,
            full_value=float(end[0]),
            extras=complete.extras(),
            notes=complete.notes(advice(steps)),
        )


def _path(inside: Inside, points: Points, baseline: Baseline, paths: VocabularyPaths) -> Float[Tensor, "S X D"]:
    """Points from the baseline to the prompt; tokens of no feature stay."""
    starts, own = embedded_baseline(inside, points, baseline), points.of_features
    words = torch.tensor(points.ids, device=own.device)[own]
    special = torch.tensor(inside.tokenizer.all_special_ids, dtype=torch.long, device=own.device)
    known = token_of(inside, baseline) if is_token(baseline) else None
    moving = paths(words, starts[own], known, torch.isin(words, special))
    path = points.own.expand(len(moving), -1, -1).clone()
    path[:, own] = moving
    return path


def _table(inside: Inside) -> Float[Tensor, "V D"]:
    """Embeddings of the vocabulary, fp32 or better."""
    table = inside.embeddings(range(inside.vocabulary))
    return table.to(torch.promote_types(table.dtype, torch.float32))


def _along(
    points: Points, path: Float[Tensor, "S X D"], *, tokens: bool
) -> tuple[Float[Tensor, "O X D"], Float[Tensor, " K"]]:
    """Gradients times steps, summed over the path, and the values at its start."""
    total: Tensor | None = None
    start: Tensor | None = None
    for part in points.parts(len(path) - 1):
        here, after = path[part], path[part.start + 1 : part.stop + 1]
        slopes = points.gradients(here, tokens=tokens)
        start = slopes.values[0] if start is None else start
        found = torch.einsum("obxd,bxd->oxd", slopes.gradients, after - here)
        total = found if total is None else total + found
    assert total is not None and start is not None, "a path has at least one step"
    return total, start

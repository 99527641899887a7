"""Integrated gradients of what modules return or read."""

from __future__ import annotations

import torch

from apportion.game.game import Game
from apportion.game.integration import checked_rule, nodes
from apportion.options import true_or_false
from apportion.protocols.backend import Capability
from apportion.protocols.inside import Side
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.baselines import Baseline, check_baseline
from apportion_plugins.methods.completeness import Completeness, advice, notes_on_modules
from apportion_plugins.methods.layer_path import Ends, Pair
from apportion_plugins.methods.layer_scores import LayerScores, LayerSettings, estimate, stacked
from apportion_plugins.methods.module_names import Layers
from apportion_plugins.methods.points import check_budget
from apportion_plugins.methods.token_scores import Summary

__all__ = ["LayerIntegratedGradients"]


class LayerIntegratedGradients:
    """Integrated gradients of what modules return or read, at the positions of each feature (Captum's
    ``LayerIntegratedGradients``).

    What a module returns moves in a straight line from what it returns for the baseline to what it returns for the
    prompt. Its scores are the mean gradient on the way times the difference, summed over the positions and dimensions
    of each feature. All positions move, those of the target too.

    Several modules move together by default, as in Captum, and nothing flows from one to the next: a module gets what
    it adds to the score directly, not through the others that are named. The scores of all modules together add up to
    the change of the score. With ``joint=False``, each module moves alone and gets its whole effect; each one's
    scores add up to the change of the score that it makes. A value is the sum over all modules.

    ``extras`` has ``modules``, ``module_values`` (M × F), ``module_token_values`` (M × T × F) and ``target_positions``,
    the sum of the scores at target positions; and ``baseline_value`` and ``convergence_delta``, the sum of all scores
    minus the change of the score.

    Positive values raise the score; they are in its unit.
    """

    estimand = "layer integrated gradients"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass per step and three more; one backward pass per step and output"

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
        steps: int = 50,
        rule: str = "gausslegendre",
        whole_prompt: bool = False,
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run one evaluation per step, with one backward pass per output, one at its start, and two more.

        ``extras`` gets:

        - ``modules``: the names of the M modules;
        - ``module_values``: Float[M, F], the values of each module for the whole target;
        - ``module_token_values``: Float[M, T, F], the same for each target token, unless ``per_token`` is false;
        - ``target_positions``: the sum of the scores for the whole target at target positions, which belong to no
          feature;
        - ``baseline_value``: Float[1 + T], the score where modules return what they return for the baseline, of the
          whole target and then of each token;
        - ``convergence_delta``: Float[1 + T], the sum of all scores minus the change of the score.

        The last two have a row for each module with ``joint=False``, and only one number with ``per_token=False``.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; steps + 3 are needed, and with ``joint=False`` steps + 1 for each
                module, and 2 more.
            rng: unused, because nothing is drawn.
            layers: name of a module, such as ``"model.layers.0.mlp"``, or a list of names. In a name, ``*`` stands for
                anything between two dots, and ``**`` for any number of parts: ``"model.layers.*.self_attn.q_proj"``,
                ``"**.mlp"``. ``None`` for the input embeddings.
            at: what of a module is scored: what it returns (``"output"``) or what it reads (``"input"``).
            joint: move all modules together, as Captum does; else one after the other, which takes steps for each.
            baseline: what replaces the tokens in the baseline; see ``integrated_gradients``.
            steps: number of points on the way.
            rule: where they are, and their weights; see ``integrated_gradients``.
            whole_prompt: replace all tokens of the prompt, as Captum and Inseq do, those of no feature included.
            aggregate: makes one number of all scores, for all positions and dimensions of a feature, and for all
                modules together; see ``saliency``.
            normalize: what values are divided by; those of modules are not.
            keep_dims: keep the dimensions in ``extras``: ``module_dims``, for each module Float[F, D], the sum of a
                feature's scores in each dimension for the whole target.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown, no module has such a name, or a module has no positions.
            BudgetError: the budget is smaller.
        """
        settings = LayerSettings.checked(layers, at, Summary(aggregate, normalize, keep_dims))
        tokens, whole = true_or_false("per_token", per_token), true_or_false("whole_prompt", whole_prompt)
        together, steps = true_or_false("joint", joint), checked_rule(rule, steps)
        check_baseline(baseline)
        inside = game.inside()
        chosen = settings.chosen(inside)
        count = 1 if together else len(chosen.names)
        what = f"Layer integrated gradients in {steps} steps" + (f" for each of {count} modules" if count > 1 else "")
        check_budget(budget, 2 + count * (steps + 1), what, "use fewer steps" + " or joint=True" * (count > 1))
        ends = Ends.read(chosen, Pair.of(inside, baseline, whole_prompt=whole))
        scores = ends.scores(whole=settings.whole)
        parts = [ends] if together else [ends.only(name) for name in chosen.names]
        complete = [_integrate(part, scores, rule, steps, tokens=tokens) for part in parts]
        return estimate(
            scores,
            settings.summary,
            game,
            estimand=self.estimand,
            full_value=float(ends.values[0, 0]),
            extras=complete[0].extras() if together else stacked(complete),
            notes=(*notes_on_modules(chosen.names, complete, advice(steps)), *scores.idle_notes()),
        )


def _integrate(ends: Ends, scores: LayerScores, rule: str, steps: int, *, tokens: bool) -> Completeness:
    """Add the scores along the path of some modules."""
    places, weights = nodes(rule, steps, torch.zeros((), dtype=torch.float64))
    for piece, found in ends.along(places, tokens=tokens):
        scores.add(found.gradients, weights[piece])
    return Completeness(scores.total(ends.chosen.names), ends.start(), ends.values[0])

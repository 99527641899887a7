"""DeepLIFT: contributions of differences from a baseline, by the Rescale rule."""

from __future__ import annotations

import torch

from apportion.game.game import Game
from apportion.options import true_or_false
from apportion.protocols.backend import Capability
from apportion.protocols.inside import Side
from apportion.protocols.methods import Estimate
from apportion_plugins.methods.baselines import Baseline, check_baseline
from apportion_plugins.methods.completeness import Completeness, notes_on_modules
from apportion_plugins.methods.layer_path import Ends, Pair
from apportion_plugins.methods.layer_scores import LayerSettings, estimate, stacked
from apportion_plugins.methods.module_names import Layers
from apportion_plugins.methods.points import check_budget, check_not_stationary
from apportion_plugins.methods.rescale import Rescaling, checked_activations
from apportion_plugins.methods.token_scores import Summary

__all__ = ["DeepLift", "LayerDeepLift"]

ADVICE = "attention, norms and products have their gradients at the prompt"
ADVICE_FOR_MODULES = f"a module explains only what passes through it, and {ADVICE}"


class DeepLift:
    """DeepLIFT with the Rescale rule (Shrikumar et al. 2017, arXiv 1704.02685): differences of the embeddings from a
    baseline times multipliers, summed over the tokens and dimensions of each feature.

    A multiplier is a gradient in which activation functions have the slope between baseline and prompt. Attention,
    norms and products are not activation functions: they have their gradients at the prompt, as in Captum, so in a
    transformer values need not add up to the change of the score; ``convergence_delta`` in ``extras`` says by how much
    they miss it. Captum rescales ReLU, Sigmoid, Tanh and a few others, but neither SiLU nor GELU: ``rule="captum"``
    reproduces its numbers.

    Positive values raise the score; they are in its unit.
    """

    estimand = "DeepLIFT contribution"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass over the prompt and its baseline; one backward pass per output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        baseline: Baseline = "mean",
        rule: str = "rescale",
        whole_prompt: bool = False,
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run two evaluations, with one backward pass per output.

        ``extras`` gets ``convergence_delta``, the sum of all scores minus the change of the score, and
        ``baseline_value``, the score of the baseline: of the whole target, then of each token.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; 2 are needed.
            rng: unused, because nothing is drawn.
            baseline: what replaces the tokens in the baseline; see ``integrated_gradients``.
            rule: ``"rescale"`` for all activation functions that are modules of the model; ``"captum"`` for those that
                Captum rescales.
            whole_prompt: replace all tokens of the prompt, as Captum and Inseq do, those of no feature included.
            aggregate: makes one number of all scores, for all tokens and dimensions of a feature together; see
                ``saliency``.
            normalize: what values are divided by; see ``saliency``.
            keep_dims: keep the scores' dimensions in ``extras``: ``dims`` and ``token_dims``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown, or the tokenizer has no such baseline.
            BudgetError: the budget is smaller.
            CapabilityError: an activation function cannot be rescaled.
        """
        summary, tokens = Summary(aggregate, normalize, keep_dims), true_or_false("per_token", per_token)
        whole, rule = true_or_false("whole_prompt", whole_prompt), checked_activations(rule)
        check_baseline(baseline)
        check_budget(budget, 2, "DeepLIFT", "use another method")
        inside = game.inside()
        check_not_stationary(inside)
        rescaling, pair = Rescaling(rule, inside), Pair.of(inside, baseline, whole_prompt=whole)
        found = inside.gradients(
            pair.prompt, following=pair.following, edits=rescaling.edits, tokens=tokens, together=True
        )
        parts = [found.prompt[:, 0]] if found.generated is None else [found.prompt[:, 0], found.generated[:, 0]]
        scores = torch.cat(parts, dim=1).to(pair.change) * pair.change
        complete = Completeness(scores.sum((1, 2)), found.values[1], found.values[0])
        return summary.estimate(
            pair.points.scores(scores),
            inside,
            n_features=game.n_features,
            n_outputs=game.n_outputs,
            estimand=self.estimand,
            full_value=float(found.values[0, 0]),
            extras=complete.extras(),
            notes=(*complete.notes(ADVICE), *rescaling.notes()),
        )


class LayerDeepLift:
    """DeepLIFT contributions of what modules return or read, at the positions of each feature (Captum's
    ``LayerDeepLift``).

    Differences of activations from those of a baseline, times multipliers as in ``deeplift``. A module's multipliers
    take all ways to the score, also those through later modules that are named. The scores of a module can add up to
    the change of the score only if everything passes through it, as through a whole layer. A value is the sum over all
    modules.

    ``extras`` has ``modules``, ``module_values`` (M × F), ``module_token_values`` (M × T × F) and ``target_positions``,
    the sum of the scores at target positions; and ``baseline_value`` and ``convergence_delta``, with a row for
    each module.

    Positive values raise the score; they are in its unit.
    """

    estimand = "layer DeepLIFT contribution"
    requires = frozenset({Capability.GRADIENTS})
    family = "gradient"
    cost = "one forward pass over the prompt and its baseline; one backward pass per output"

    def run(
        self,
        game: Game,
        *,
        budget: int | None,
        rng: torch.Generator,
        layers: Layers = None,
        at: Side = "output",
        baseline: Baseline = "mean",
        rule: str = "rescale",
        whole_prompt: bool = False,
        aggregate: str = "sum",
        normalize: str = "none",
        keep_dims: bool = False,
        per_token: bool = True,
    ) -> Estimate:
        """Run two evaluations for all modules, with one backward pass per output.

        ``extras`` gets ``modules``, ``module_values``, ``module_token_values`` and ``target_positions`` as in
        ``layer_integrated_gradients``; and, with a row for each module, ``baseline_value``, the score of the baseline,
        and ``convergence_delta``, the sum of the module's scores minus the change of the score from the baseline to the
        prompt.

        Args:
            game: the game to evaluate.
            budget: maximum number of evaluations; 2 are needed.
            rng: unused, because nothing is drawn.
            layers: names of modules; see ``layer_integrated_gradients``.
            at: what of a module is scored: what it returns (``"output"``) or what it reads (``"input"``).
            baseline: what replaces the tokens in the baseline; see ``integrated_gradients``.
            rule: which activation functions are rescaled; see ``deeplift``.
            whole_prompt: replace all tokens of the prompt, as Captum and Inseq do, those of no feature included.
            aggregate: makes one number of all scores; see ``layer_integrated_gradients``.
            normalize: what values are divided by; those of modules are not.
            keep_dims: keep the dimensions in ``extras``; see ``layer_integrated_gradients``.
            per_token: score each target token too, which takes a backward pass for each.

        Raises:
            InputError: an option is unknown, no module has such a name, or a module has no positions.
            BudgetError: the budget is smaller.
            CapabilityError: an activation function cannot be rescaled.
        """
        settings = LayerSettings.checked(layers, at, Summary(aggregate, normalize, keep_dims))
        tokens, whole = true_or_false("per_token", per_token), true_or_false("whole_prompt", whole_prompt)
        rule = checked_activations(rule)
        check_baseline(baseline)
        check_budget(budget, 2, "Layer DeepLIFT", "use another method")
        inside = game.inside()
        check_not_stationary(inside)
        chosen, rescaling = settings.chosen(inside), Rescaling(rule, inside)
        pair = Pair.of(inside, baseline, whole_prompt=whole)
        found = chosen.gradients(
            pair.prompt, following=pair.following, edits=rescaling.edits, tokens=tokens, together=True
        )
        ends = Ends(chosen, pair.prompt[0], found.values, found.activations)
        scores = ends.scores(whole=settings.whole)
        scores.add([{name: one[:, :1] for name, one in part.items()} for part in found.gradients], torch.ones(1))
        complete = [Completeness(scores.total([name]), found.values[1], found.values[0]) for name in chosen.names]
        return estimate(
            scores,
            settings.summary,
            game,
            estimand=self.estimand,
            full_value=float(found.values[0, 0]),
            extras=stacked(complete),
            notes=(*notes_on_modules(chosen.names, complete, ADVICE_FOR_MODULES), *rescaling.notes()),
        )

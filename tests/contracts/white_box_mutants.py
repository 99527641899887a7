"""Defects seeded into a white-box method: every class here must fail. ``test_mutants.py`` runs them.

``TestScores…`` return wrong values, ``TestConduct…`` misbehave; each is run with the checks of that half only.
"""

from __future__ import annotations

import pytest
import torch

import apportion as ap
from apportion.testing import WhiteBoxMethodContract


class Path:
    """Integrated gradients from 0: the base of the defects below, and right by itself."""

    estimand, requires = "integrated gradients", frozenset({ap.Capability.GRADIENTS})
    steps = 8

    def run(self, game, *, budget, rng):
        if budget is not None and budget < self.steps:
            raise ap.BudgetError(f"It takes {self.steps} evaluations, and the budget is {budget}.")
        self.before(game)
        inside = game.inside()
        end, after = inside.embeddings(), inside.following()
        start = self.start(end)
        share = ((torch.arange(self.steps) + 0.5) / self.steps).to(end)[:, None, None]
        found = inside.gradients(start + share * (end - start), following=after.expand(self.steps, -1, -1))
        scores = (found.prompt.mean(1) * (end - start)).sum(-1)
        later = (found.generated[:, -1] * after).sum(-1)
        values = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
        scores, owners = self.scores(inside, scores)
        for feature, column in zip((*owners, *inside.generated_feature_of), (*scores.T, *later.T), strict=True):
            if feature is not None:
                values[feature] += column
        return self.after(game, ap.Estimate(values))

    def before(self, game):
        pass

    def start(self, end):
        return torch.zeros_like(end)

    def scores(self, inside, scores):
        return scores, inside.feature_of

    def after(self, game, estimate):
        return estimate


def white_box_contract(mutant, **attributes):
    attributes = {"complete": True, "method": pytest.fixture(lambda self: mutant()), **attributes}
    return type("Contract", (WhiteBoxMethodContract,), attributes)


def changes_values(change):
    """A method whose values are changed at the end."""
    return type("Changed", (Path,), {"after": lambda self, game, found: ap.Estimate(change(game, found.values))})


class WrongBaseline(Path):
    """Starts at the mean embedding, and says 0."""

    def start(self, end):
        return end.mean(0, keepdim=True).expand_as(end)


class TestScoresWrongBaseline(white_box_contract(WrongBaseline)):
    pass


class TestScoresLostSign(white_box_contract(changes_values(lambda game, values: -values))):
    pass


class TestScoresAbsoluteValue(white_box_contract(changes_values(lambda game, values: values.abs()), complete=False)):
    pass


class ShiftedByOne(Path):
    """The score of each token goes to the next one."""

    def scores(self, inside, scores):
        return scores.roll(1, 1), inside.feature_of


class TestScoresOffByOnePosition(white_box_contract(ShiftedByOne, complete=False)):
    pass


class WithFixedTokens(Path):
    """What belongs to no feature goes to the first one."""

    def scores(self, inside, scores):
        return scores, tuple(feature or 0 for feature in inside.feature_of)


class TestScoresAddsTokensWithoutAFeature(white_box_contract(WithFixedTokens)):
    pass


class MeansOfTokens(Path):
    """The mean over the tokens of a feature, where a sum is claimed."""

    def scores(self, inside, scores):
        sizes = [inside.feature_of.count(feature) for feature in inside.feature_of]
        return scores / torch.tensor(sizes), inside.feature_of


class TestScoresMeanInsteadOfSum(white_box_contract(MeansOfTokens)):
    pass


class TestScoresFirstOutputForAll(
    white_box_contract(changes_values(lambda game, values: values[:, :1].expand(-1, game.n_outputs)))
):
    pass


class TestScoresColumnsMixedUp(
    white_box_contract(changes_values(lambda game, values: torch.cat([values[:, :1], values[:, 1:].flip(1)], 1)))
):
    pass


class TestScoresWholeTargetIsAMean(
    white_box_contract(
        changes_values(lambda game, values: torch.cat([values[:, :1] / (game.n_outputs - 1), values[:, 1:]], 1))
    )
):
    pass


class TestConductNoiseOfItsOwn(
    white_box_contract(changes_values(lambda game, values: values + 1e-12 * torch.randn(values.shape)))
):
    pass


class ScoresItself(Path):
    """Target tokens score themselves, too."""

    def after(self, game, estimate):
        values = estimate.values.clone()
        for token, feature in enumerate(game.inside().generated_feature_of):
            if feature is not None:
                values[feature, : token + 2] += 1.0
        return ap.Estimate(values)


class TestScoresTokensScoreThemselves(white_box_contract(ScoresItself)):
    pass


class Forgets(Path):
    """Earlier target tokens get nothing, without a word."""

    def after(self, game, estimate):
        values, own = estimate.values.clone(), game.inside().generated_feature_of
        values[[feature for feature in own if feature is not None]] = 0.0
        return ap.Estimate(values)


class TestScoresForgetsGeneratedTokens(white_box_contract(Forgets)):
    pass


def changes_model(change):
    """A method that changes the model before it looks inside."""
    return type("Changing", (Path,), {"before": lambda self, game: change(game.inside().modules()["model.layers.0"])})


class TestConductLeakedHook(
    white_box_contract(changes_model(lambda layer: layer.register_forward_hook(lambda *_: None)))
):
    pass


class TestConductTrainingModeLeft(white_box_contract(changes_model(lambda layer: layer.train(not layer.training)))):
    pass


class TestConductWeightsFrozen(white_box_contract(changes_model(lambda layer: layer.requires_grad_(False)))):
    pass


def patch_forward(layer):
    layer.forward = layer.forward


class TestConductPatchedForward(white_box_contract(changes_model(patch_forward))):
    pass


class HookUntilTheEnd(Path):
    """Removes its hook, but not after an error."""

    def before(self, game):
        self.handle = game.inside().modules()["model.layers.0"].register_forward_hook(lambda *_: None)

    def after(self, game, estimate):
        self.handle.remove()
        return estimate


class TestConductHookLeftAfterAnError(white_box_contract(HookUntilTheEnd)):
    pass


class Backward(Path):
    """Gradients pile up in the weights."""

    def before(self, game):
        inside = game.inside()
        inside.values(inside.embeddings()[None])[0, 0].backward()


class TestConductGradientsLeftInWeights(white_box_contract(Backward)):
    pass


class Uncounted(Path):
    """Calls a layer behind the game's back."""

    def before(self, game):
        inside = game.inside()
        model = next(iter(inside.modules().values()))
        with torch.no_grad():
            model(inputs_embeds=inside.embeddings()[None], use_cache=False)


class TestConductUncountedForwardPass(white_box_contract(Uncounted)):
    pass


class RefusesLate(Path):
    """Looks at the model before it looks at the budget."""

    def run(self, game, *, budget, rng):
        inside = game.inside()
        inside.values(inside.embeddings()[None])
        return super().run(game, budget=budget and budget - 1, rng=rng)


class TestConductRefusesAfterAsking(white_box_contract(RefusesLate)):
    pass


class NeedsWeightsThatLearn(Path):
    """Another answer where weights are frozen."""

    def after(self, game, estimate):
        learns = any(weight.requires_grad for weight in game.inside().modules()["model"].parameters())
        return ap.Estimate(estimate.values * (1.0 if learns else 0.5))


class TestConductMindsFrozenWeights(white_box_contract(NeedsWeightsThatLearn)):
    pass


class OnlyWhatFits(Path):
    """Takes fewer steps where memory is short."""

    def run(self, game, *, budget, rng):
        found = Path()
        found.steps = min(self.steps, game.inside().batch_rows)
        return found.run(game, budget=budget, rng=rng)


class TestConductOnlyWhatFits(white_box_contract(OnlyWhatFits)):
    pass


class Remembers(Path):
    """Each run changes the next one."""

    def __init__(self):
        self.calls = 0

    def after(self, game, estimate):
        self.calls += 1
        return ap.Estimate(estimate.values * (1 + 1e-3 * self.calls))


class TestConductRemembersEarlierRuns(white_box_contract(Remembers)):
    pass


class SignsCalledMagnitudes(Path):
    """Signed values that are called magnitudes."""

    def after(self, game, estimate):
        return ap.Estimate(estimate.values, signed=False)


class TestScoresSignsCalledMagnitudes(white_box_contract(SignsCalledMagnitudes)):
    pass


class IgnoresTheContrast(Path):
    """Explains the target alone."""

    def after(self, game, estimate):
        return estimate if len(game.inside().targets) == 1 else ap.Estimate(estimate.values * 0.5)


class TestScoresIgnoresTheContrast(white_box_contract(IgnoresTheContrast)):
    pass


class TestControl(white_box_contract(Path)):
    pass

"""A complete plugin in one file: a sampler, a method that uses it, a prompt type, and a view."""

from __future__ import annotations

import torch
from rich.text import Text

import apportion as ap


class Halves:
    """Draws coalitions in which each feature is present with probability one half."""

    def sample(self, n_features: int, budget: int, rng: torch.Generator) -> ap.Coalitions:
        """Draw as many coalitions as the budget allows, with equal weights."""
        mask = torch.rand(budget, n_features, generator=rng) < 0.5
        return ap.Coalitions(mask, torch.ones(budget, dtype=torch.float64))


class Hello:
    """Banzhaf values from differences between coalitions and their complements.

    The difference counts for the features in the coalition and against the others. With uniform coalitions, its mean
    is the Banzhaf value.
    """

    estimand = "Banzhaf value"
    requires: frozenset[ap.Capability] = frozenset()

    def run(
        self, game: ap.Game, *, budget: int | None, rng: torch.Generator, sampler: str | ap.Sampler = "halves"
    ) -> ap.Estimate:
        """Evaluate each coalition and its complement; 128 evaluations in all without a budget.

        Args:
            game: the game to evaluate.
            budget: maximum number of distinct evaluations.
            rng: the only source of randomness.
            sampler: draws the coalitions; a registered name or a sampler.

        Raises:
            BudgetError: the budget is below 2.
        """
        if budget is not None and budget < 2:
            raise ap.BudgetError(f"A coalition and its complement take 2 evaluations, and the budget is {budget}.")
        assert isinstance(sampler, ap.Sampler), "sampler names are resolved before the call"
        drawn = sampler.sample(game.n_features, (budget or 128) // 2, rng)
        difference = game.values(drawn.mask) - game.values(~drawn.mask)  # Float[S, K]
        samples = torch.where(drawn.mask, 1.0, -1.0).double()[:, :, None] * difference[:, None, :]  # Float[S, F, K]
        share = (drawn.weight.double() / drawn.weight.sum())[:, None, None]
        values, count = (share * samples).sum(0), len(samples)
        variance = ((share * (samples - values)) ** 2).sum(0) * (count / (count - 1) if count > 1 else torch.nan)
        return ap.Estimate(values, std_error=variance.sqrt())


class Lines:
    """A prompt whose lines are its features."""

    def __init__(self, text: str) -> None:
        if not text.strip():
            raise ap.InputError("Lines needs text with at least one line.")
        self.lines = text.splitlines(keepends=True)


class LinesAdapter:
    """Names the lines and renders coalitions of them."""

    def __init__(self, prompt: Lines, context: ap.AdaptContext) -> None:
        self.lines, self.context = prompt.lines, context
        self.features = tuple(ap.Feature(f"line {i}", line) for i, line in enumerate(self.lines, 1))
        self.segments = tuple(ap.Segment(line, i) for i, line in enumerate(self.lines))

    def render(self, mask: torch.Tensor) -> list[ap.ModelInput]:
        """Join the lines that are present; ``mask`` is Bool[S, F]."""
        texts = ["".join(line for line, there in zip(self.lines, row, strict=True) if there) for row in mask.tolist()]
        return [ap.ModelInput(ids) for ids in self.context.encode(texts)]


class Greeting:
    """A text view with one line per feature, strongest first."""

    def render(self, attribution: ap.Attribution, *, width: int = 20) -> Text:
        """Return a rich renderable.

        Args:
            attribution: the result.
            width: width of the longest bar in columns.
        """
        text, strength = Text(), abs(attribution.values)
        for i in (-strength).argsort(kind="stable"):
            value, bar = attribution.values[i], "█" * round(width * strength[i] / max(strength.max(), 1e-300))
            text.append(f"{value:+9.3g} ").append(f"{bar:<{width}} ", "blue" if value > 0 else "red")
            text.append(f"{attribution.feature_names[i]}\n")
        return text


@ap.hookimpl
def apportion_register_samplers(register: ap.Register) -> None:
    register("halves", Halves, summary="each feature with probability one half")


@ap.hookimpl
def apportion_register_methods(register: ap.Register) -> None:
    register("hello", Hello, summary="Banzhaf values from coalitions and their complements")


@ap.hookimpl
def apportion_register_inputs(register: ap.Register) -> None:
    register("lines", Lines, summary="text whose lines are features")


@ap.hookimpl
def apportion_adapt_input(prompt: object, context: ap.AdaptContext) -> ap.InputAdapter | None:
    return LinesAdapter(prompt, context) if isinstance(prompt, Lines) else None


@ap.hookimpl
def apportion_register_visualizers(register: ap.Register) -> None:
    register("greeting", Greeting, summary="one line per feature, strongest first")

"""The contract of attribution methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import BudgetError
from apportion.game.game import Game
from apportion.game.method_runner import check_estimate
from apportion.hooks.object_check import object_faults
from apportion.options import check_options
from apportion.protocols.backend import WHITE_BOX
from apportion.protocols.methods import Estimate, Method, beyond_values
from apportion.testing import games
from apportion.testing.contract import Contract
from apportion.testing.explainers import tiny_explainer
from apportion.testing.games import KnownGame
from apportion.testing.randomness import assert_mean, generator, only_its_own_generator, rounded

__all__ = ["MethodContract"]

SEEDS = 24
BUDGETS = (1, 2, 3, 5, 6, 9, 10, 17, 18, 31, 32, 33, 64, 200)


def _games() -> list[KnownGame]:
    """Games whose values can be estimated from a few hundred coalitions, without rare large values."""
    found = [game for game in games.known_games(6) if game.n <= 6 and not game.name.startswith("unanimity")]
    unanimity = [games.KnownGame(f"unanimity-{n}", n, {tuple(range(n)): 7.0}) for n in (2, 3)]
    larger = [games.random_moebius(10, order) for order in (1, 2, 3)]
    return list({game.name: game for game in [*found, *unanimity, *larger]}.values())


class MethodContract(Contract):
    """Contract of methods. Subclass it, provide a fixture ``method``, and set attributes that describe your method.

    The checks run it on games with known values. A method that samples is assessed by its mean over fixed seeds, so
    checks never fail by chance. If the games do not know its ``estimand`` (see ``apportion.testing.games.ESTIMANDS``),
    override ``truth``; without it, the other checks still run. A method that needs more than values of coalitions
    (``requires``) is run only on a tiny model; for one that looks inside the model, see ``WhiteBoxMethodContract``.

    Attributes:
        options: method options that all checks use.
        sampled: the method draws from ``rng``; ``False`` for deterministic methods.
        symmetric: renaming the features renames the values and changes nothing else.
        signed: a feature that raises the score gets a positive value.
        promises_errors: the method returns standard errors whenever it does not evaluate every coalition.
        adaptive: queries depend on earlier values, so that the method makes many small queries.
        budget: number of evaluations for the checks.
        bias: allowed bias of the mean over seeds at that budget, as a fraction of the largest true value. 0 for
            unbiased estimators; regressions have some bias.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    sampled: ClassVar[bool] = True
    symmetric: ClassVar[bool] = True
    signed: ClassVar[bool] = True
    promises_errors: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    budget: ClassVar[int] = 96
    bias: ClassVar[float] = 0.0

    @pytest.fixture
    def method(self) -> Method:
        """Your method."""
        raise NotImplementedError("Define a fixture `method` that returns your method.")

    def truth(self, game: KnownGame, estimand: str) -> Float[Tensor, " F"] | None:
        """The correct values in a known game; ``None`` if they are unknown."""
        return game.truth(estimand)

    def run(self, method: Method, game: Game, *, budget: int | None, seed: int = 0) -> Estimate:
        """Run the method as the explainer does, and check the shape of its estimate."""
        assert not isinstance(method, type), "The fixture `method` returned a class; return an instance."
        check_options(f"method {type(method).__name__}", method.run, self.options)
        estimate = method.run(game, budget=budget, rng=generator(seed), **self.options)
        estimate = check_estimate(type(method).__name__, estimate, game.n_features, game.n_outputs)
        assert estimate.values.dtype == torch.float64, (
            f"Values must be float64, like the game's; they are {estimate.values.dtype}."
        )
        return estimate

    def on(self, method: Method, known: KnownGame, *, budget: int | None = None, seed: int = 0) -> Estimate:
        """Run the method on a known game with the contract's budget, or without one if that is too small."""
        if further := beyond_values(method):
            pytest.skip(f"needs {', '.join(c.value for c in further)}, not only values of coalitions")
        game = Game.from_function(known, known.n)
        try:
            return self.run(method, game, budget=budget or self.budget, seed=seed)
        except BudgetError:
            return self.run(method, game, budget=None, seed=seed)

    def means(self, method: Method, known: KnownGame, *, budget: int | None = None) -> Float[Tensor, "R F"]:
        """Values of the whole target, one row per seed."""
        seeds = range(SEEDS if self.sampled else 1)
        return torch.stack([self.on(method, known, budget=budget, seed=seed).values[:, 0].double() for seed in seeds])

    def test_it_says_what_it_is(self, method: Method) -> None:
        """Estimand, requirements, signature, and documentation of every option."""
        faults = object_faults("methods", method)
        assert not faults, f"{type(method).__name__} {' '.join(faults)}"
        assert not method.requires & WHITE_BOX, (
            "It looks inside the model, which games do not have: subclass WhiteBoxMethodContract instead."
        )

    @pytest.mark.parametrize("known", _games(), ids=lambda game: game.name)
    def test_known_games(self, method: Method, known: KnownGame) -> None:
        """Values of known games are exact, or right in the mean over seeds."""
        estimate = self.on(method, known)
        expected = self.truth(known, estimate.estimand or method.estimand)
        if expected is None:
            pytest.skip(f"no known values for the estimand {method.estimand!r}; override `truth`")
        allowed = self.bias * float(expected.abs().max())
        assert_mean(self.means(method, known), expected, f"the game {known.name}", off_by=allowed)

    def test_positive_raises_the_score(self, method: Method) -> None:
        """A feature that raises the score on its own gets a positive value; one that lowers it, a negative one."""
        if not self.signed:
            pytest.skip("this method's values have no sign (`signed = False`)")
        known = games.KnownGame("one up, one down", 5, {(): 1.0, (1,): 8.0, (3,): -8.0, (0,): 0.1})
        values = self.means(method, known).mean(0)
        assert values[1] > 0 > values[3], (
            f"Feature 1 adds 8 and feature 3 subtracts 8; the values are {rounded(values)}."
        )

    def test_names_of_features_do_not_matter(self, method: Method) -> None:
        """Renaming the features renames the values (in the mean over seeds) and changes nothing else."""
        if not self.symmetric:
            pytest.skip("this method depends on the order of features (`symmetric = False`)")
        known, order = games.random_moebius(6, 3, seed=5), [4, 2, 0, 5, 1, 3]
        plain, renamed = self.means(method, known), self.means(method, known.permuted(order))
        back = renamed[:, order]
        spread = (plain.var(0) + back.var(0)).sqrt() if self.sampled else torch.zeros(6, dtype=torch.float64)
        allowed = 6 * spread / SEEDS**0.5 + 1e-9
        wrong = ((plain.mean(0) - back.mean(0)).abs() > allowed).nonzero().flatten().tolist()
        assert not wrong, (
            f"Feature {wrong[0]} gets {plain.mean(0)[wrong[0]]:.6g}, but {back.mean(0)[wrong[0]]:.6g} when the "
            "features are listed in another order."
        )

    def test_a_constant_changes_nothing(self, method: Method) -> None:
        """A constant added to all scores does not change the values, because attributions depend on differences."""
        known = games.random_moebius(6, 2, seed=3)
        plain, shifted = (self.on(method, game).values for game in (known, known.plus(50.0)))
        assert torch.allclose(plain, shifted, atol=1e-6), (
            f"With 50 added to every score the values change from {rounded(plain)} to {rounded(shifted)}."
        )

    def test_every_output_gets_its_column(self, method: Method) -> None:
        """With several outputs, each column has the values of that output alone."""
        parts = [games.random_moebius(6, 3, seed=seed) for seed in (1, 2, 3)]
        alone = torch.cat([self.on(method, part).values for part in parts], dim=1)
        together = Game.from_function(lambda mask: torch.stack([part(mask) for part in parts], 1), 6, n_outputs=3)
        try:
            found = self.run(method, together, budget=self.budget).values
        except BudgetError:
            found = self.run(method, together, budget=None).values
        for k in range(3):
            ours, expected = found[:, k], alone[:, k]
            assert torch.allclose(ours, expected, atol=1e-8), (
                f"Output {k} of three gets {rounded(ours)}; alone it gets {rounded(expected)}."
            )

    def test_the_seed_decides_everything(self, method: Method) -> None:
        """The same seed gives the same values, regardless of earlier runs; another seed gives different draws."""
        known = games.random_moebius(10, 3)
        with only_its_own_generator():
            first = self.on(method, known, seed=1)
            other = self.on(method, known, seed=2)
        with torch.random.fork_rng():
            torch.manual_seed(12345)
            again = self.on(method, known, seed=1)
        assert torch.equal(first.values, again.values), "The same seed gave different values the second time."
        if self.sampled:
            assert not torch.equal(first.values, other.values), (
                "Two seeds gave the same values. Draw from `rng`, or set `sampled = False` for a deterministic method."
            )
        else:
            assert torch.equal(first.values, other.values), "`sampled` is False, but two seeds gave different values."

    @pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
    def test_the_budget_is_kept(self, method: Method, n: int) -> None:
        """Evaluations never exceed the budget; a budget that is too small is rejected before the first evaluation."""
        if beyond_values(method):
            pytest.skip("it calls the model itself")
        for budget in (*BUDGETS, 2**n, 2 ** (n + 1)):
            game = Game.from_function(games.random_moebius(n, min(n, 3)), n)
            try:
                self.run(method, game, budget=budget)
            except BudgetError as error:
                assert game.evaluations == 0, (
                    f"A budget of {budget} for {n} features was rejected after {game.evaluations} evaluations: {error} "
                    "Compute the required budget first, and reject a smaller one before you query the game."
                )
                assert str(budget) in str(error), f"The message must state the budget: {error}"
                assert budget < 2**n, f"A budget of {budget} allows all {2**n} coalitions of {n} features: {error}"
            else:
                assert game.evaluations <= budget, (
                    f"{game.evaluations} distinct evaluations of {n} features with a budget of {budget}."
                )

    def test_it_runs_without_a_budget(self, method: Method) -> None:
        """With ``budget=None``, the method chooses the number of evaluations."""
        if beyond_values(method):
            pytest.skip("it calls the model itself")
        for n in (1, 2, 6):
            self.run(method, Game.from_function(games.random_moebius(n, 1), n), budget=None)

    def test_more_evaluations_give_less_spread(self, method: Method) -> None:
        """With eight times the budget, the values of different seeds are closer together."""
        if not self.sampled:
            pytest.skip("it is deterministic")
        known = games.random_moebius(10, 4, seed=2)
        few, many = (
            self.means(method, known, budget=budget).std(0).norm() for budget in (self.budget, 8 * self.budget)
        )
        assert many <= 0.8 * few, (
            f"The spread over seeds is {few:.4g} with a budget of {self.budget} and {many:.4g} with {8 * self.budget}."
        )

    def test_standard_errors_are_true(self, method: Method) -> None:
        """95 % intervals cover the truth in at least 88 % of cases, and are not far too wide."""
        known = games.random_moebius(9, 4, seed=4)
        estimates = [self.on(method, known, seed=seed) for seed in range(100 if self.sampled else 1)]
        errors = [estimate.std_error for estimate in estimates if estimate.std_error is not None]
        if not errors:
            assert not (self.promises_errors and self.sampled), "It promises standard errors, but returns none."
            pytest.skip("it does not return standard errors")
        assert len(errors) == len(estimates), "Standard errors are returned for some seeds only."
        values = torch.stack([estimate.values[:, 0] for estimate in estimates])
        found = torch.stack([error[:, 0] for error in errors])
        assert not found.isnan().any(), f"Standard errors are NaN with a budget of {self.budget}."
        truth = self.truth(known, method.estimand)
        centre = values.mean(0) if truth is None or self.bias else truth
        covered = float(((values - centre).abs() <= 1.96 * found + 1e-9).double().mean())
        assert covered >= 0.88, f"Intervals of ±1.96 standard errors cover the truth in {covered:.0%} of cases."
        spread = values.std(0).norm()
        assert found.mean(0).norm() <= 2 * spread + 1e-9, (
            f"The standard errors are {found.mean(0).norm():.4g}, but the spread over seeds is {spread:.4g}."
        )

    def test_values_without_errors_are_exact(self, method: Method) -> None:
        """Values without standard errors depend on no seed, and are the truth where it is known."""
        known = games.random_moebius(10, 3)
        found = [self.on(method, known, seed=seed) for seed in range(3 if self.sampled else 1)]
        if any(estimate.std_error is not None for estimate in found):
            pytest.skip("it returns standard errors")
        advice = "Without standard errors, values count as exact. Return std_error, with NaN where it is unknown."
        for other in found[1:]:
            assert torch.equal(other.values, found[0].values), f"Two seeds gave different values. {advice}"
        expected = self.truth(known, found[0].estimand or method.estimand)
        if expected is not None:
            values = found[0].values[:, 0]
            assert torch.allclose(values, expected, atol=1e-6), (
                f"The values are {rounded(values)}, but should be {rounded(expected)}. {advice}"
            )

    def test_replicates_are_like_the_errors(self, method: Method) -> None:
        """If there are replicates, they are centred on the values, with a spread equal to the standard errors."""
        estimate = self.on(method, games.random_moebius(9, 4, seed=4))
        if estimate.replicates is None or estimate.std_error is None:
            pytest.skip("it does not return replicates")
        values, errors = estimate.values[:, 0], estimate.std_error[:, 0]
        found = estimate.replicates.double()
        off = (found.mean(0) - values).abs()
        # Allow for the error of a mean over few replicates.
        allowed = errors * (0.25 + 4 / len(found) ** 0.5) + 1e-9
        assert bool((off <= allowed).all()), (
            f"The mean of the replicates is {rounded(found.mean(0))}, but the values are {rounded(values)}. Centre the "
            "replicates on the values."
        )
        spread, expected = float(found.std(0).norm()), float(errors.norm())
        assert 0.7 * expected - 1e-9 <= spread <= 1.4 * expected + 1e-9, (
            f"The spread of the replicates is {spread:.4g}, but the standard errors are {expected:.4g}, so the "
            "ranking's stability would be wrong."
        )

    def test_it_asks_for_many_at_once(self, method: Method) -> None:
        """Coalitions are evaluated in batches, because a model is several times slower with one at a time."""
        if self.adaptive or beyond_values(method):
            pytest.skip("its queries depend on earlier values (`adaptive = True`), or it calls the model itself")
        known, asked = games.random_moebius(8, 2), []

        def function(mask: Tensor) -> Tensor:
            asked.append(len(mask))
            return known(mask)

        for budget in (self.budget, None):
            game = Game.from_function(function, 8)
            try:
                self.run(method, game, budget=budget)
                break
            except BudgetError:
                continue
        assert len(asked) <= max(8, sum(asked) // 4), (
            f"{sum(asked)} coalitions were evaluated in {len(asked)} calls of game.values(). Pass all known coalitions "
            "at once."
        )

    def test_it_runs_on_a_model(self, method: Method, tmp_path: Path) -> None:
        """The whole pipeline works on a tiny model, and the result can be saved and loaded."""
        from apportion.results.attribution import Attribution

        with tiny_explainer() as explainer:
            result = explainer.attribute("one two three four", " five", method=method, budget=None, **self.options)
        assert result.token_values.shape == (len(result.target_tokens), 4)
        again = Attribution.load(result.save(tmp_path / "result.json"))
        assert np.array_equal(again.values, result.values)

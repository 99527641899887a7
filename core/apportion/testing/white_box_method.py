"""The contract of methods that look inside the model."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from apportion.errors import BudgetError, CapabilityError, PluginError
from apportion.explainer import Explainer
from apportion.game.game import Game
from apportion.hooks.object_check import object_faults
from apportion.options import check_options
from apportion.prompts.template import Template
from apportion.prompts.text import Text
from apportion.protocols.backend import WHITE_BOX
from apportion.protocols.methods import Estimate, Method
from apportion.results.attribution import Attribution
from apportion.testing import planted, tiny
from apportion.testing.contract import Contract
from apportion.testing.model_state import Watched, unchanged
from apportion.testing.planted import LOWERS, OTHER, RAISES, TARGET
from apportion.testing.randomness import assert_mean, only_its_own_generator
from apportion.testing.white_box import GradientTimesInput

__all__ = ["WhiteBoxMethodContract"]

SEEDS = 24
BUDGETS = (1, 2, 5, 13, 34, 89)
WORDS, ANSWER = "one two three", " four"
ARRANGEMENTS = (f"ab{RAISES}cd{LOWERS}ef{OTHER}gh", f"{OTHER}abc{LOWERS}def{RAISES}gh")


class WhiteBoxMethodContract(Contract):
    """Contract of methods that need gradients, hidden states or attention weights. Subclass it, provide a fixture
    ``method``, and set attributes that describe your method.

    The checks run it on tiny models in float64: a random one, one that attends to a few characters only, and one whose
    logits are linear in the embeddings, so that the contribution of each token is known.

    Attributes:
        options: method options that all checks use.
        sampled: the method draws from ``rng``.
        signed: positive values raise the target's score, negative ones lower it.
        complete: the values of all tokens add up to the score at the prompt minus that at the ``baseline``. In a linear
            model they are then the contributions of the tokens.
        tolerance: error of that sum that is allowed, as a fraction.
        explains_score: the values explain the target function's score; ``False`` for internals such as attention
            weights, which are the same for every target function.
        linear: the values of a sum of outputs are the sums of their values, as for gradients. The whole target then
            gets the sum of its tokens, and a difference of two targets the difference of their values.
        additive: the value of a feature is the sum of the values that its tokens would have as features.
        scores_tokens: each target token gets values of its own, not only the whole target.
        scores_generated: with ``attribute_generated=True``, earlier target tokens get values too.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    sampled: ClassVar[bool] = False
    signed: ClassVar[bool] = True
    complete: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.01
    explains_score: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    additive: ClassVar[bool] = True
    scores_tokens: ClassVar[bool] = True
    scores_generated: ClassVar[bool] = True

    @pytest.fixture
    def method(self) -> Method:
        """Your method."""
        raise NotImplementedError("Define a fixture `method` that returns your method.")

    def baseline(self, points: Float[Tensor, "P D"]) -> Float[Tensor, "P D"]:
        """Embeddings at which a complete method starts, for a prompt with these; 0 unless you override it."""
        return torch.zeros_like(points)

    @contextmanager
    def opened(self, model: PreTrainedModel, **settings: Any) -> Iterator[Explainer]:
        """Open a model."""
        with Explainer((model, tiny.tokenizer()), progress=False, **settings) as explainer:
            yield explainer

    def run(self, explainer: Explainer, method: Method, prompt: object, target: str, **arguments: Any) -> Attribution:
        """Run the method as users do, with the contract's options."""
        assert not isinstance(method, type), "The fixture `method` returned a class; return an instance."
        check_options(f"method {type(method).__name__}", method.run, self.options)
        return explainer.attribute(prompt, target, method=method, **{**self.options, **arguments})

    def on(self, model: PreTrainedModel, method: Method, prompt: object, target: str, **arguments: Any) -> Attribution:
        """Open a model, and run the method."""
        with self.opened(model) as explainer:
            return self.run(explainer, method, prompt, target, **arguments)

    def test_it_says_what_it_is(self, method: Method) -> None:
        """Estimand, requirements, signature, and documentation of every option."""
        faults = object_faults("methods", method)
        assert not faults, f"{type(method).__name__} {' '.join(faults)}"
        assert method.requires & WHITE_BOX, (
            "`requires` names nothing of the model's inside. For methods that query coalitions, use MethodContract."
        )

    @pytest.mark.parametrize("prompt", ARRANGEMENTS)
    def test_the_tokens_that_matter_score_highest(self, method: Method, prompt: str) -> None:
        """The values of the characters that the model reads, two or one, are the largest, and move with them.

        The last token is left out: a model reads it directly, too.
        """
        for token, matter in zip(TARGET, (RAISES + LOWERS, OTHER), strict=True):
            found = self._marked(method, prompt, token)
            others = {name: value for name, value in found.items() if name not in RAISES + LOWERS + OTHER + prompt[-1]}
            least, most = min(abs(found[name]) for name in matter), max(map(abs, others.values()))
            assert least > 2 * most, (
                f"For the target {token!r} the model reads {' and '.join(matter)}, whose values should be the largest: "
                f"{_rounded(found)}."
            )

    def test_positive_raises_the_score(self, method: Method) -> None:
        """A character that raises the score gets the highest value; one that lowers it, the lowest, below 0."""
        prompt = ARRANGEMENTS[1]
        recorded, estimates = _recorded(method)
        self.on(planted.marked_model(), recorded, prompt, TARGET[0])
        assert estimates[0].signed == self.signed, (
            f"The contract says signed = {self.signed}, and the method's estimate signed = {estimates[0].signed}."
        )
        if not self.signed:
            pytest.skip("this method's values have no sign (`signed = False`)")
        first, second = (self._marked(method, prompt, token) for token in TARGET)
        assert first[RAISES] == max(first.values()) > 0 > min(first.values()) == first[LOWERS], (
            f"{RAISES} raises the score and {LOWERS} lowers it; the values are {_rounded(first)}."
        )
        assert second[OTHER] == max(second.values()) > 0, f"{OTHER} raises the score: {_rounded(second)}."

    def test_tokens_without_a_feature_give_nothing_to_features(self, method: Method) -> None:
        """A token that belongs to no feature keeps its score, however large."""
        text = f"ab{RAISES}cdef"
        alone = self._marked(method, text, TARGET[0])[RAISES]
        prompt = Template(f"a{{one}}{RAISES}{{two}}{{three}}f", values={"one": "b", "two": "c", "three": "de"})
        with self.opened(planted.marked_model()) as explainer:
            found = self.run(explainer, method, prompt, TARGET[0], target_fn="logit")
        assert float(abs(found.values).max()) < abs(alone) / 2, (
            f"The fixed text of a template has a token of the value {alone:.4g}; the slots get {found.values}."
        )

    def test_contributions_in_a_linear_model(self, method: Method) -> None:
        """In a model that is linear in the embeddings, a complete method returns each token's contribution."""
        if not self.complete:
            pytest.skip("this method does not claim completeness (`complete = False`)")
        model, text = planted.linear_model(), "linear?"
        prompt, target = (list(tiny.tokenizer()(one)["input_ids"]) for one in (text, TARGET))
        points = model.model.embed_tokens.weight.detach()[prompt]
        expected = planted.contributions(prompt, target, self.baseline(points))
        with self.opened(model) as explainer:
            results = [
                self.run(explainer, method, Text(text, by="tokens"), TARGET, target_fn="logit", seed=seed)
                for seed in range(SEEDS if self.sampled else 1)
            ]
        margin = 1e-5 * float(expected.abs().max())  # norms are computed in fp32
        whole = torch.stack([torch.tensor(result.values) for result in results])
        assert_mean(whole, expected[0], "the linear model", off_by=margin)
        for place in range(len(target) if self.scores_tokens else 0):
            each = torch.stack([torch.tensor(result.token_values[place]) for result in results])
            assert_mean(each, expected[1 + place], f"the linear model, target token {place + 1}", off_by=margin)

    def test_values_add_up(self, method: Method) -> None:
        """The values of a complete method add up to the score minus that of the baseline."""
        if not self.complete:
            pytest.skip("this method does not claim completeness (`complete = False`)")
        model, text = planted.marked_model(), f"ab{RAISES}cdef"
        ids, (token,) = (tiny.tokenizer()(one)["input_ids"] for one in (text, TARGET[0]))
        with torch.no_grad():
            points = model.get_input_embeddings()(torch.tensor(ids))
            both = torch.stack([points, self.baseline(points)])
            scores = model(inputs_embeds=both, use_cache=False).logits[:, -1, token]
        gain, found = float(scores[0] - scores[1]), sum(self._marked(method, text, TARGET[0]).values())
        assert abs(found - gain) <= self.tolerance * abs(gain), (
            f"The values add up to {found:.6g}; the score is {gain:.6g} above that of the baseline."
        )

    def test_features_get_the_sum_of_their_tokens(self, method: Method) -> None:
        """The value of a feature is the sum of the values that its tokens have as features."""
        if not self.additive:
            pytest.skip("this method does not add up tokens (`additive = False`)")
        parts = {"a": "one", "b": " two", "c": " three"}
        slots = Template("{a}{b}{c}", values=parts)  # all tokens belong to a feature, as with tokens as features
        with self.opened(_random()) as explainer:
            few, many = (self.run(explainer, method, one, ANSWER) for one in (slots, Text(WORDS, by="tokens")))
        ends = np.cumsum([len(part) for part in parts.values()])
        sums = [float(part.sum()) for part in np.split(many.values, ends[:-1])]
        assert np.allclose(few.values, sums, atol=1e-9), f"Slots get {few.values}, and their tokens {sums} in all."

    def test_the_whole_target_gets_the_sum_of_its_tokens(self, method: Method) -> None:
        """If the score of the target is the sum of those of its tokens, so are its values."""
        if not self.linear or not self.scores_tokens:
            pytest.skip("values of sums are not sums of values (`linear = False`), or tokens have no values")
        found = self.on(_random(), method, WORDS, ANSWER)
        assert np.allclose(found.values, found.token_values.sum(0), atol=1e-9), (
            f"The whole target gets {found.values}, its tokens {found.token_values.sum(0)} in all."
        )

    def test_later_tokens_change_nothing(self, method: Method) -> None:
        """A target token gets the values that it has without the tokens after it."""
        if self.sampled or not self.scores_tokens:
            pytest.skip("it samples, or tokens have no values of their own")
        with self.opened(_random()) as explainer:
            long, short = (self.run(explainer, method, WORDS, target) for target in (ANSWER, ANSWER[:2]))
        assert np.allclose(long.token_values[: len(short.token_values)], short.token_values, atol=1e-9), (
            f"The tokens of {ANSWER[:2]!r} get {short.token_values}; with more tokens after them, {long.token_values}."
        )

    def test_a_contrast_is_subtracted(self, method: Method) -> None:
        """The values of a difference of two targets are the differences of their values, if they explain the score."""
        names = ("contrast_logits_diff", "logit", "logit")
        with self.opened(_random()) as explainer:
            both, one, other = (
                self.run(explainer, method, WORDS, target, target_fn=name, **contrast)
                for name, target, contrast in zip(names, "xxy", ({"contrast": "y"}, {}, {}), strict=True)
            )
        differs = not np.allclose(both.values, one.values)
        assert differs == self.explains_score, (
            "The contrast makes no difference."
            if self.explains_score
            else "`explains_score` is False, but the contrast makes a difference."
        )
        expected = one.values - other.values
        assert not (self.linear and self.explains_score) or np.allclose(both.values, expected, atol=1e-9), (
            f"The difference of two targets gets {both.values}; the values of each differ by {expected}."
        )

    def test_generated_tokens_get_values_only_for_later_ones(self, method: Method) -> None:
        """A target token has a value for those after it, and 0 for itself and those before it."""
        with self.opened(_random()) as explainer:
            plain = self.run(explainer, method, WORDS, ANSWER)
            if not self.scores_generated:
                with pytest.raises(CapabilityError):
                    self.run(explainer, method, WORDS, ANSWER, attribute_generated=True)
                return
            recorded, estimates = _recorded(method)
            found = self.run(explainer, recorded, WORDS, ANSWER, attribute_generated=True)
        # As the method returns them: results have 0 where a value is impossible.
        block = estimates[0].values[found.generated_part, 1:].T.numpy()
        if self.scores_tokens:
            assert not np.triu(block).any(), f"A token has a value for itself, or for one before it: {block}."
            assert np.tril(block, -1).any(), "No target token has a value for a later one."
        else:
            assert found.values[found.generated_part].any(), "No target token has a value."
        first = found.token_values[0, found.prompt_part]
        assert self.sampled or np.allclose(first, plain.token_values[0], atol=1e-9, equal_nan=True), (
            f"The first token's values are {plain.token_values[0]}, but {first} beside those of generated tokens."
        )

    def test_the_seed_decides_everything(self, method: Method) -> None:
        """The same seed gives the same values, whatever ran before; another seed gives different draws."""
        with self.opened(_random()) as explainer:
            with only_its_own_generator():
                first, other = (self.run(explainer, method, WORDS, ANSWER, seed=seed) for seed in (1, 2))
            again = self.run(explainer, method, WORDS, ANSWER, seed=1)
        assert np.array_equal(first.values, again.values), "The same seed gave different values the second time."
        assert np.array_equal(first.values, other.values) != self.sampled, (
            "Two seeds gave the same values. Draw from `rng`, or leave `sampled = False`."
            if self.sampled
            else "`sampled` is False, but two seeds gave different values."
        )

    def test_the_mode_of_the_caller_does_not_matter(self, method: Method) -> None:
        """Values are the same without gradients, in inference mode, and with frozen weights."""
        model, frozen = _random(), _random().requires_grad_(False)
        plain = self.on(model, method, WORDS, ANSWER).values
        with torch.no_grad():
            quiet = self.on(model, method, WORDS, ANSWER).values
        with torch.inference_mode():
            inference = self.on(model, method, WORDS, ANSWER).values
        for what, found in (
            ("under torch.no_grad()", quiet),
            ("in inference mode", inference),
            ("with frozen weights", self.on(frozen, method, WORDS, ANSWER).values),
        ):
            assert np.array_equal(found, plain), f"The values are {plain}, but {found} {what}."

    def test_a_small_memory_budget_does_not_matter(self, method: Method) -> None:
        """Values are the same where layers are computed again to save memory."""
        plain = self.on(_random(), method, WORDS, ANSWER[:2]).values
        with self.opened(_random(), memory_budget=1) as explainer:
            small = self.run(explainer, method, WORDS, ANSWER[:2]).values
        assert np.allclose(small, plain, atol=1e-9), f"The values are {plain}, but {small} with little memory."

    @pytest.mark.parametrize("training", [False, True])
    def test_the_model_is_left_as_it_was(self, method: Method, training: bool) -> None:
        """Outputs, hooks, flags, gradients and mode of the model are the same after a run."""
        model = _random().train(training)
        with self.opened(model) as explainer, unchanged(model):
            self.run(explainer, method, WORDS, ANSWER)

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("after", [0, 1])
    def test_a_failure_leaves_the_model_as_it_was(self, method: Method, error: type[BaseException], after: int) -> None:
        """So they are after an error, or Ctrl-C, in a forward pass."""
        model = _random().train()
        watched = Watched(model)
        with self.opened(model) as explainer:
            self.run(explainer, method, WORDS, ANSWER)  # the backend has examined the model
            with unchanged(model):
                watched.rows, watched.error, watched.after = [], error, after
                try:
                    self.run(explainer, method, WORDS, ANSWER)
                except (error, PluginError):
                    assert watched.failed
                else:
                    assert not watched.failed, f"The model raised {error.__name__}, and the run went on."
                finally:
                    watched.error = None

    def test_every_forward_pass_is_counted(self, method: Method) -> None:
        """The model computes no more rows than evaluations are counted, and an estimate knows their number."""
        model = _random()
        watched = Watched(model)
        with self.opened(model) as explainer:
            self.run(explainer, method, WORDS, ANSWER)  # the backend has examined the model
            watched.rows = []
            found = self.run(explainer, method, WORDS, ANSWER).provenance
            rows, watched.rows = watched.rows, []
            cost = explainer.estimate(WORDS, ANSWER, method=method, **self.options)
        assert sum(rows) <= found.evaluations, (
            f"The model computed {sum(rows)} rows, and {found.evaluations} evaluations were counted. Ask "
            "`game.inside()`; do not call modules."
        )
        assert (cost.evaluations, cost.forwarded_tokens) == (found.evaluations, found.forwarded_tokens), (
            f"The run took {found.evaluations} evaluations, and the estimate {cost.evaluations}."
        )

    def test_the_budget_is_kept(self, method: Method) -> None:
        """Evaluations never exceed the budget; a budget that is too small is rejected before the model runs."""
        model = _random()
        watched = Watched(model)
        with self.opened(model) as explainer:
            needed = self.run(explainer, method, WORDS, ANSWER).provenance.evaluations
            for budget in (*BUDGETS, needed):
                watched.rows = []
                try:
                    found = self.run(explainer, method, WORDS, ANSWER, budget=budget)
                except BudgetError as error:
                    assert budget < needed, f"It takes {needed} evaluations, but rejects a budget of {budget}."
                    assert str(budget) in str(error), f"The message must state the budget: {error}"
                    assert not watched.rows, (
                        f"A budget of {budget} was rejected after {sum(watched.rows)} evaluations. Compute what is "
                        "needed first, and reject a smaller budget before you ask."
                    )
                else:
                    assert found.provenance.evaluations <= budget

    def test_it_runs_among_others(self, method: Method, tmp_path: Path) -> None:
        """In ``attribute_many`` the results are those of single runs; they can be saved and loaded."""
        other, prompts = GradientTimesInput(), [WORDS, "five six seven"]
        with self.opened(_random()) as explainer:
            alone = [self.run(explainer, method, prompt, ANSWER) for prompt in prompts]
            mixed: list[Any] = [{"prompt": prompt, "method": method, **self.options} for prompt in prompts]
            mixed.insert(1, {"prompt": WORDS, "method": other})
            many = list(explainer.attribute_many(mixed, target=ANSWER))
        for single, found in zip(alone, (many[0], many[2]), strict=True):
            assert np.allclose(found.values, single.values, atol=1e-9), (
                f"Alone the values are {single.values}, and beside other runs {found.values}."
            )
        again = Attribution.load(many[0].save(tmp_path / "result.json"))
        assert np.array_equal(again.values, many[0].values)

    def _marked(self, method: Method, prompt: str, token: str) -> dict[str, float]:
        """Values of all characters of a prompt, for a target of one token, in the model that attends to few."""
        found = self.on(planted.marked_model(), method, Text(prompt, by="tokens"), token, target_fn="logit")
        return dict(zip(prompt, found.values.tolist(), strict=True))


def _random() -> PreTrainedModel:
    """A random model of one's own, so that what a method leaves on it is not found again by the next check."""
    return copy.deepcopy(tiny.model())


def _recorded(method: Method) -> tuple[Method, list[Estimate]]:
    """The same method, and the estimates that it returns."""
    found = list[Estimate]()
    other: Any = copy.copy(method)

    @functools.wraps(method.run)
    def run(game: Game, **arguments: Any) -> Estimate:
        found.append(method.run(game, **arguments))
        return found[-1]

    other.run = run
    return other, found


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}

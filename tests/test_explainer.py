"""The pipeline: counts are exact, results are honest, and mistakes are refused before the model runs."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.testing import tiny
from apportion_plugins.methods.shapley import ExactShapley
from apportion_plugins.samplers.bernoulli import BernoulliSampler
from apportion_plugins.targets.likelihood import LogProb

TEMPLATE = ap.Template(
    "{name} lives in {city}, {state} and is a {job}. {pronoun} hobby",
    {"name": "Dave", "city": "Palm Coast", "state": "FL", "job": "lawyer", "pronoun": "His"},
    {"name": "Sarah", "city": "Seattle", "state": "WA", "job": "doctor", "pronoun": "Her"},
)


class Recorder:
    """A plugin that sees every hook of a run."""

    def __init__(self) -> None:
        self.rows = 0
        self.stages: list[str] = []
        self.before: list[ap.Request] = []
        self.after: list[ap.Attribution] = []

    @ap.hookimpl(wrapper=True)
    def apportion_score(self, session: ap.Session, batch: ap.ScoringBatch) -> Iterator[None]:
        found = yield
        assert found.shape == (batch.n_rows, batch.n_targets)
        self.rows += batch.n_rows
        found += 0  # an ordinary tensor, which a wrapper may change
        return found

    @ap.hookimpl
    def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
        self.stages.append(event.stage)

    @ap.hookimpl
    def apportion_before_run(self, request: ap.Request) -> None:
        self.before.append(request)

    @ap.hookimpl
    def apportion_after_run(self, attribution: ap.Attribution) -> None:
        self.after.append(attribution)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def recorded(recorder: Recorder) -> ap.Explainer:
    return ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[recorder])


@pytest.mark.parametrize(
    ("prompt", "method", "rows"),
    [
        (TEMPLATE, "shapley", 32),
        (TEMPLATE, "ablation", 6),
        (ap.Text("a b c d e f g"), "ablation", 8),
        (ap.Template("{a}{b}", {"a": "x", "b": "y"}, {"a": "x", "b": "z"}), "shapley", 2),  # a's baseline is its value
        (ap.Template("{a} {b}", {"a": "x", "b": "y"}, {"a": ["p", "q"]}), "shapley", 6),
    ],
)
def test_only_distinct_prompts_are_scored(
    recorded: ap.Explainer, recorder: Recorder, prompt: object, method: str, rows: int
) -> None:
    result = recorded.attribute(prompt, " golf", method=method)
    assert recorder.rows == result.provenance.evaluations == rows


def test_permutation_never_scores_a_coalition_twice(recorded: ap.Explainer, recorder: Recorder) -> None:
    result = recorded.attribute(TEMPLATE, " golf", method="permutation")
    assert recorder.rows == result.provenance.evaluations <= 32
    limited = recorded.attribute(ap.Text("a b c d e f g h"), " golf", method="permutation", budget=50)
    assert 30 < limited.provenance.evaluations <= 50
    assert recorder.rows == result.provenance.evaluations + limited.provenance.evaluations


def test_forwarded_tokens_are_counted_and_sharing_saves_them() -> None:
    shared = ap.Explainer((tiny.model(), tiny.tokenizer()))
    whole = ap.Explainer((tiny.model(), tiny.tokenizer()), share_prefixes=False)
    prompt = ap.Template("A long beginning that never changes: {a} {b}", {"a": "x", "b": "y"}, {"a": "v", "b": "w"})
    results = [e.attribute(prompt, " z", method="shapley") for e in (shared, whole)]
    # One byte a token: 4 rows of 40 with a target of 2, whose last token is not read; 37 are common to all, the first
    # slot and the space after it to two rows each.
    assert [r.provenance.forwarded_tokens for r in results] == [37 + 2 * 2 + 4 * (1 + 1), 4 * (40 + 1)]
    assert abs(results[0].values - results[1].values).max() < 1e-9


def test_results_say_what_they_are(recorded: ap.Explainer, recorder: Recorder) -> None:
    result = recorded.attribute(TEMPLATE, " golf")
    assert result.estimand == "Shapley value"
    assert result.values.shape == (5,)
    assert result.token_values.shape == (5, 5)
    assert result.std_error is None
    assert result.target_tokens == tuple(" golf")
    assert abs(result.efficiency_gap) < 1e-12
    assert abs(result.token_values.sum(0) - result.values).max() < 1e-12
    assert result.full_value - result.base_value == pytest.approx(result.values.sum())
    provenance = result.provenance
    assert provenance.method == "shapley"
    assert "2^5 = 32 coalitions fit the default budget of 1,024" in provenance.method_reason
    assert (provenance.backend, provenance.device, provenance.dtype) == ("torch", "cpu", "float64")
    assert len(provenance.fingerprint) == 32
    assert {"apportion", "torch", "transformers", "python"} <= set(provenance.versions)
    assert recorder.after == [result]
    assert recorder.before[0].adapter.features == result.features
    assert recorder.stages[0] == "score"
    assert recorder.stages[-1] == "end"


def test_ablation_does_not_pay_for_a_base_value(explainer: ap.Explainer) -> None:
    result = explainer.attribute(TEMPLATE, " golf", method="ablation")
    assert result.base_value is None
    assert result.full_value is not None
    assert result.efficiency_gap is None
    assert result.estimand == "leave-one-out"


def test_sampled_results_carry_errors_and_follow_the_seed(explainer: ap.Explainer) -> None:
    text = ap.Text("a b c d e f")
    first, again, other = (
        explainer.attribute(text, " golf", method="permutation", budget=30, seed=s) for s in (1, 1, 2)
    )
    assert (first.std_error > 0).all()
    assert first.token_std_error.shape == first.token_values.shape
    assert (first.values == again.values).all()
    assert (first.values != other.values).any()


def test_results_say_how_their_target_was_written(explainer: ap.Explainer) -> None:
    given = explainer.attribute("a b", "xy", method="permutation")
    assert given.provenance.generation is None
    assert given.provenance.options == {"antithetic": True, "n_permutations": None}
    written = explainer.attribute("a b", generate={"max_new_tokens": 2})
    assert written.provenance.generation == {"max_new_tokens": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_budget": 0}, "memory_budget=0"),
        ({"memory_budget": True}, "memory_budget=True must be a whole number of bytes"),
        ({"memory_budget": "512MiB"}, "memory_budget='512MiB' must be a whole number of bytes"),
        ({"backend": None}, "backend=None is neither a name nor a Backend"),
        ({"share_prefixes": "no"}, "share_prefixes='no' must be True or False"),
        ({"progress": "x"}, "progress='x' must be True, False, 'auto', 'always' or 'never'"),
        ({"backend": "torch", "backend_options": {1: 2}}, "backend_options={1: 2} must be a dict of options by name"),
        ({"backend_options": "compile"}, "backend_options='compile' must be a dict of options by name"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        ap.Explainer((tiny.model(), tiny.tokenizer()), **options)


def test_casting_leaves_the_users_model_as_it_is() -> None:
    model = tiny.model()
    explainer = ap.Explainer((model, tiny.tokenizer()), dtype=torch.float32)
    assert explainer.session.info.dtype == "float32"
    assert model.dtype == torch.float64


def test_groups_and_alternatives_reach_the_result(explainer: ap.Explainer) -> None:
    prompt = ap.Template(
        "{a} {b} {c}", {"a": "x", "b": "y", "c": "z"}, {"a": ["p", "q"], "b": ["r", "s"]}, groups=[("a", "c")]
    )
    result = explainer.attribute(prompt, "!", method="shapley")
    assert result.feature_names == ("a + c", "b")
    assert abs(result.efficiency_gap) < 1e-12
    assert result.provenance.notes == ("Averaged over all 4 combinations of baselines.",)


def test_the_average_over_alternatives_is_the_average_of_runs(explainer: ap.Explainer) -> None:
    """v̄(S) is the mean over the same draws, so Shapley values are means of those of each draw."""
    values = {"a": "x", "b": "y"}
    together = explainer.attribute(ap.Template("{a} {b}.", values, {"a": ["p", "q"], "b": "r"}), "!", method="shapley")
    apart = [
        explainer.attribute(ap.Template("{a} {b}.", values, {"a": a, "b": "r"}), "!", method="shapley").values
        for a in "pq"
    ]
    assert together.values == pytest.approx(sum(apart) / 2, abs=1e-12)


def test_targets_are_texts_ids_or_generated(explainer: ap.Explainer) -> None:
    by_text = explainer.attribute("a b", " golf", method="ablation")
    ids = tiny.tokenizer()(" golf", add_special_tokens=False)["input_ids"]
    for given in (ids, tuple(ids), torch.tensor(ids)):
        by_ids = explainer.attribute("a b", given, method="ablation")
        assert (by_ids.values == by_text.values).all()
        assert by_ids.target_text == " golf"
    generated = explainer.attribute("a b", method="ablation", generate={"max_new_tokens": 4})
    assert len(generated.target_tokens) == 4


def test_probability_is_the_exponential_of_every_entry(explainer: ap.Explainer) -> None:
    log = explainer.attribute("a b", "xy", method="shapley")
    prob = explainer.attribute("a b", "xy", method="shapley", target_fn="prob")
    assert prob.full_value == pytest.approx(torch.tensor(log.full_value).exp().item())
    assert prob.unit == "probability"
    assert log.unit == "nats"


class Entropy:
    """Of the next-token distributions; needs whole logits."""

    needs = ap.Needs.LOGITS

    def __call__(self, scores: ap.Scores, target: ap.Target) -> torch.Tensor:
        assert scores.logits is not None
        each = torch.distributions.Categorical(logits=scores.logits).entropy()
        return torch.cat([each.sum(1, keepdim=True), each], 1)


def test_target_functions_may_read_logits(explainer: ap.Explainer) -> None:
    result = explainer.attribute("a b", "xy", method="ablation", target_fn=Entropy())
    model = tiny.model()
    logits = model(torch.tensor([tiny.tokenizer()("a bx")["input_ids"]])).logits[0, -2:]
    expected = torch.distributions.Categorical(logits=logits).entropy().sum()
    assert result.full_value == pytest.approx(expected.item())
    assert result.provenance.target_fn == "Entropy"


def test_a_prompt_without_text_is_scored_after_the_start_token(explainer: ap.Explainer) -> None:
    result = explainer.attribute("a b", "xy", method="shapley")
    assert result.provenance.notes == ("A prompt without any text is scored after the token <s>.",)
    no_start = copy.deepcopy(tiny.tokenizer())
    no_start.bos_token = no_start.eos_token = None
    with pytest.raises(ap.InputError, match="leaves no text, .*Use keep=, a baseline"):
        ap.Explainer((tiny.model(), no_start)).attribute("a b", "xy", method="shapley")


class Refusing:
    """A plugin that fails the test when the model is asked anything."""

    @ap.hookimpl
    def apportion_score(self) -> None:
        raise AssertionError("the model ran")


BAD_CALLS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"method": "shapely"}, ap.UnknownNameError, "No method is called 'shapely'. Did you mean 'shapley'.*ablation"),
    ({"method": 3}, ap.InputError, "method=3 is neither a name nor an object with `run`"),
    ({"target_fn": "logprob"}, ap.UnknownNameError, "No target function is called 'logprob'. Did you mean 'log_prob'"),
    ({"target_fn": 3}, ap.InputError, "target_fn=3 must be a name, a TargetFunction"),
    ({"prompt": ""}, ap.InputError, "The prompt must not be empty"),
    ({"prompt": 3}, ap.InputError, "This int is not a prompt: 3. Pass a str, ap.Text, ap.Template"),
    (
        {"prompt": TEMPLATE, "features": "words"},
        ap.InputError,
        "this prompt is of type Template. It defines its own features",
    ),
    ({"features": "wrods"}, ap.InputError, "No kind of feature is called 'wrods'. Did you mean 'words'"),
    ({"target": ""}, ap.InputError, "The target is an empty string. Give a text, or None for the model's own"),
    ({"target": []}, ap.InputError, "The target is an empty list of token ids"),
    ({"target": [1, 999]}, ap.InputError, "The target id 999 is outside the vocabulary of 260 tokens"),
    ({"target": [1.5]}, ap.InputError, r"must be a string, token ids or None; it is \[1.5\]"),
    ({"target": 3}, ap.InputError, "must be a string, token ids or None; it is 3"),
    ({"target": "x", "generate": {}}, ap.InputError, "omit generate= or target="),
    ({"target": None, "generate": {"max_tokens": 3}}, ap.InputError, "has no option 'max_tokens'. Did you mean"),
    ({"target": b" x"}, ap.InputError, "must be a string, token ids or None"),
    ({"target": "a\udcff"}, ap.InputError, "The target has an invalid Unicode character at position 1"),
    ({"prompt": "a \udcff b"}, ap.InputError, "The prompt has an invalid Unicode character"),
    ({"target": None, "generate": [1]}, ap.InputError, r"generate=\[1\] must be a dict"),
    ({"target": None, "generate": {"num_return_sequences": 2, "do_sample": True}}, ap.InputError, "one sequence"),
    ({"seed": 2**64}, ap.InputError, "must be below 2\\^63"),
    ({"method": "permutation", "antithetic": "no"}, ap.InputError, "antithetic='no' must be True or False"),
    ({"method": "permutation", "n_permutations": "4"}, ap.InputError, "n_permutations='4' must be a positive"),
    ({"method": "permutation", "n_permutations": 10**12}, ap.InputError, "do not fit into memory"),
    ({"n_permutations": 4}, ap.InputError, "The method 'shapley', chosen by auto, has no option 'n_permutations'"),
    ({"budget": 0}, ap.InputError, "budget=0 must be a whole number of at least 1"),
    ({"budget": 2.5}, ap.InputError, "budget=2.5 must be a whole number"),
    ({"seed": -1}, ap.InputError, "seed=-1 must be a whole number of at least 0"),
    ({"method": "shapley", "budget": 7}, ap.BudgetError, r"3 features take 2\^3 = 8 evaluations, and the budget is 7"),
    ({"method": "ablation", "budget": 3, "target": None}, ap.BudgetError, "takes 4 evaluations, and the budget is 3"),
    ({"method": "permutation", "n_permutation": 4}, ap.InputError, "no option 'n_permutation'. Did you mean 'n_permut"),
    ({"method": "ablation", "x": 4}, ap.InputError, "The method 'ablation' has no option 'x'. Its options: none"),
    ({"by": "words"}, ap.InputError, r"attribute\(\) has no argument 'by'. Write features=, such as"),
    ({"n_samples": 9}, ap.InputError, "no argument 'n_samples'. Write budget=, the maximum number"),
    ({"method": "captum_lime", "num_samples": 9}, ap.InputError, "no argument 'num_samples'. Write budget="),
    (
        {"baselines": 0},
        ap.InputError,
        r"no argument 'baselines'. An absent feature is removed, .* ap.Text\(…, baseline=",
    ),
    ({"attributed_fn": "prob"}, ap.InputError, "no argument 'attributed_fn'. Write target_fn="),
    ({"perturbations_per_eval": 8}, ap.InputError, r"Explainer\(…, memory_budget=…\)"),
    ({"device": "cpu"}, ap.InputError, "no argument 'device'. It is an argument of Explainer"),
    ({"taget": " x"}, ap.InputError, r"attribute\(\) has no argument 'taget'. Did you mean 'target'\?$"),
    ({"prompt": [{"role": "user", "content": "Hi"}]}, ap.InputError, r"not a prompt: .* pass ap.Chat\(messages\)"),
    ({"prompt": ["one", "two"]}, ap.InputError, "not a prompt: .* For several prompts, use attribute_many"),
    ({"prompt": ["one", "two"], "features": "words"}, ap.InputError, "of type list. For several prompts, use"),
    ({"prompt": {"messages": []}}, ap.InputError, "A conversation is an ap.Chat"),
    (
        {"method": ExactShapley},
        ap.InputError,
        r"method=ExactShapley is a class; pass an instance: method=ExactShapley\(\)",
    ),
    ({"target_fn": LogProb}, ap.InputError, "target_fn=LogProb is a class; pass an instance"),
    ({"method": "banzhaf", "sampler": BernoulliSampler}, ap.InputError, "sampler=BernoulliSampler is a class"),
    ({"prompt": ap.Text("one two", keep=lambda text: re.match("o", text))}, ap.InputError, r"Wrap the value in bool\("),
    ({"prompt": "a" * 510, "features": "tokens"}, ap.InputError, "exceed the model's context length of 512 tokens"),
    ({"prompt": "a" * 512, "target": None}, ap.InputError, "has 512 tokens and the model's context length is 512"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), BAD_CALLS, ids=lambda v: str(v)[:40] if isinstance(v, dict) else ""
)
def test_mistakes_are_refused_before_the_model_runs(call: dict[str, Any], error: type[Exception], message: str) -> None:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[Refusing()])
    arguments = {"prompt": "one two three", "target": " four"} | call
    with pytest.raises(error, match=message):
        explainer.attribute(**arguments)


def test_numbers_of_thousands_of_digits_are_refused(explainer: ap.Explainer) -> None:
    """Python neither writes them out nor makes floats of them."""
    for name, value, message in (
        ("budget", 2**15_000, r"budget=about 10\^4515 must be below 2\^63"),
        ("budget", -(2**15_000), r"budget=about -10\^4515 must be a whole number of at least 1"),
        ("seed", 2**15_000, r"seed=about 10\^4515 must be below 2\^63"),
        ("until", 2**2000, "must be a standard error"),
        ("until", [2**15_000], "until=<list> must be a standard error"),
        ("target_fn", 2**15_000, r"target_fn=about 10\^4515 must be a name"),
        ("target", [2**15_000], r"id about 10\^4515 is outside the vocabulary"),
        ("features", [2**15_000], "<list> is neither a kind of feature"),
        ("contrast", 10**400, r"contrast=about 10\^400 is given"),
    ):
        with pytest.raises(ap.InputError, match=message):
            explainer.attribute(**{"prompt": "one two", "target": " x", name: value})


def test_a_budget_too_small_stops_before_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()))

    def generate(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(explainer.session, "generate", generate)
    with pytest.raises(ap.BudgetError):
        explainer.attribute("one two three", method="shapley", budget=7)


def test_budgets_of_alternatives_are_explained(explainer: ap.Explainer) -> None:
    prompt = ap.Template("{a} {b} {c}", {"a": "x", "b": "y", "c": "z"}, {"a": ["p", "q", "r"]})
    with pytest.raises(ap.BudgetError, match="budget is 3.*takes 3 evaluations.*budget of 9 allows 3 coalitions"):
        explainer.attribute(prompt, "!", method="ablation", budget=9)
    assert explainer.attribute(prompt, "!", method="ablation", budget=12).provenance.evaluations <= 12


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("no-such-folder/./x", ap.ModelError, "cannot be loaded"),
        ("./nowhere", ap.ModelError, "There is no folder or file nowhere"),
        ("weights.gguf", ap.ModelError, "There is no file weights.gguf"),
        (tiny.model(), ap.InputError, r"Objects come in pairs: Explainer\(\(model, tokenizer\)\)"),
        (
            3,
            ap.InputError,
            "A model is a name, a path, a .model, tokenizer. pair, or an object with tokenizer=, and not this int: 3",
        ),
        (None, ap.InputError, r"and not None. Write Explainer\('smollm2'\) for the demo model"),
        (("a", "b"), ap.InputError, r"must be \(model, tokenizer\) of transformers.*\(str, str\)"),
    ],
)
def test_models_that_do_not_exist(model: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ap.Explainer(model)


def test_backends_are_named_or_chosen() -> None:
    pair = (tiny.model(), tiny.tokenizer())
    with pytest.raises(
        ap.UnknownNameError, match="No backend is called 'tritn'.*Available: onnxruntime, openai, torch"
    ):
        ap.Explainer(pair, backend="tritn")
    assert ap.Explainer(pair, backend="torch").session.info.backend == "torch"


class Absent:
    """A backend of high priority that is not installed."""

    info = ap.BackendInfo("absent", ("cpu",), frozenset(), priority=10)

    def availability(self) -> ap.Unavailable:
        return ap.Unavailable("its package is missing", "pip install absent")

    def claims(self, spec: ap.ModelSpec) -> bool:
        return True

    def load(self, spec: ap.ModelSpec, **options: object) -> ap.Session:
        raise AssertionError("an unavailable backend is never loaded")


class BackendPlugin:
    """Brings one backend."""

    def __init__(self, backend: type[Absent]) -> None:
        self.backend = backend

    @ap.hookimpl
    def apportion_register_backends(self, register: Any) -> None:
        register("absent", self.backend, summary="for a test")


def test_only_auto_falls_back_and_says_so() -> None:
    pair = (tiny.model(), tiny.tokenizer())
    for model in (pair, "no/such/model"):  # which is looked for only afterwards
        with pytest.raises(
            ap.BackendError, match="'absent' is not available: its package is missing. pip install absent"
        ):
            ap.Explainer(model, backend="absent", plugins=[BackendPlugin(Absent)])
    result = ap.Explainer(pair, plugins=[BackendPlugin(Absent)]).attribute("a b", "c")
    assert result.provenance.backend == "torch"
    assert "Backend 'absent' passed over: its package is missing." in result.provenance.notes


class Clueless(Absent):
    """A backend that fails to say whether it can run."""

    def availability(self) -> ap.Unavailable:
        raise ImportError("libcuda.so.1 is missing")


def test_a_backend_that_fails_to_tell_keeps_no_other_from_running() -> None:
    pair = (tiny.model(), tiny.tokenizer())
    result = ap.Explainer(pair, plugins=[BackendPlugin(Clueless)]).attribute("a b", "c")
    assert result.provenance.backend == "torch"
    said = "its availability() failed (ImportError: libcuda.so.1 is missing)"
    assert any(said in note for note in result.provenance.notes)
    with pytest.raises(ap.BackendError, match="libcuda"):
        ap.Explainer(pair, backend="absent", plugins=[BackendPlugin(Clueless)])


class Half:
    """The method of the design page."""

    estimand, requires = "Banzhaf value", frozenset()

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator, **options: Any) -> ap.Estimate:
        mask = torch.rand(budget or 64, game.n_features, generator=rng) < 0.5
        v = game.values(mask)
        m = mask.double()
        return ap.Estimate((m.T @ v) / m.sum(0)[:, None] - ((1 - m).T @ v) / (1 - m).sum(0)[:, None])


class HalfPlugin:
    @ap.hookimpl
    def apportion_register_methods(self, register: Any) -> None:
        register("half", Half, summary="difference of means over random halves")


def test_a_method_in_one_file() -> None:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[HalfPlugin()])
    result = explainer.attribute("a b c", "d", method="half", budget=8)
    assert result.estimand == "Banzhaf value"
    assert result.provenance.method == "half"
    assert (explainer.attribute("a b c", "d", method=Half(), budget=8).values == result.values).all()
    with pytest.raises(ap.InputError, match="no option 'typo'"):
        explainer.attribute("a b c", "d", method="half", typo=1)


@pytest.mark.parametrize(
    ("estimate", "message"),
    [
        (3, "returned int, not an apportion.Estimate"),
        (ap.Estimate(torch.zeros(2, 2)), r"values of shape \(2, 2\).*it must be \(3, 2\)"),
        (ap.Estimate(torch.full((3, 2), torch.nan)), "not finite: 3 of 3, such as nan of feature 0 for output 0"),
        (ap.Estimate(torch.zeros(3, 2), torch.full((3, 2), -1.0)), "negative or infinite standard error"),
    ],
)
def test_methods_are_held_to_their_protocol(explainer: ap.Explainer, estimate: object, message: str) -> None:
    class Wrong:
        estimand, requires = "nothing", frozenset()

        def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> object:
            return estimate

    with pytest.raises(ap.PluginError, match=message):
        explainer.attribute("a b c", "d", method=Wrong())


def test_methods_that_need_more_than_the_backend_gives(explainer: ap.Explainer) -> None:
    class Gradient(Half):
        requires = frozenset({ap.Capability.IMAGES})

    with pytest.raises(ap.CapabilityError, match="'Gradient' needs images, which the backend 'torch' does not"):
        explainer.attribute("a b c", "d", method=Gradient())


class Given:
    """Answers hooks with what the test gives."""

    def __init__(self, log_probs: torch.Tensor | None = None, adapter: object = None) -> None:
        self.log_probs, self.adapter = log_probs, adapter

    @ap.hookimpl
    def apportion_score(self) -> object:
        return self.log_probs

    @ap.hookimpl
    def apportion_adapt_input(self) -> object:
        return self.adapter


def test_plugins_that_score_or_adapt_are_held_to_their_protocol() -> None:
    pair = (tiny.model(), tiny.tokenizer())
    with pytest.raises(ap.PluginError, match=r"Scoring a batch .* returned \(1, 1\) instead of a .* \(3, 1\)"):
        ap.Explainer(pair, plugins=[Given(torch.zeros(1, 1))]).attribute("a b", "c", method="ablation")
    with pytest.raises(ap.PluginError, match=r"target function Flat returned \(3,\) instead of a .* \(3, 2\)"):

        class Flat:
            needs = ap.Needs.LOG_PROBS

            def __call__(self, scores: ap.Scores, target: ap.Target) -> torch.Tensor:
                return scores.log_probs.sum(1)

        ap.Explainer(pair).attribute("a b", "c", method="ablation", target_fn=Flat())

    class Twins:
        features = (ap.Feature("x", "x"), ap.Feature("x", "y"))

        def render(self, mask: torch.Tensor) -> list[ap.ModelInput]:
            return [ap.ModelInput((1,)) for _ in mask]

    with pytest.raises(ap.PluginError, match="adapter Twins gave 2 features the name 'x'"):
        ap.Explainer(pair, plugins=[Given(adapter=Twins())]).attribute("a", "c")
    Twins.features = ()
    with pytest.raises(ap.InputError, match="has no features"):
        ap.Explainer(pair, plugins=[Given(adapter=Twins())]).attribute("a", "c")


def test_values_that_overflow_name_the_coalition() -> None:
    model = copy.deepcopy(tiny.model())
    with torch.no_grad():
        model.get_input_embeddings().weight[tiny.tokenizer()("z")["input_ids"][0]] = torch.nan
    explainer = ap.Explainer((model, tiny.tokenizer()))
    with pytest.raises(ap.ScoreError, match=r"not finite: nan with the features \{q, z\} present"):
        explainer.attribute("q z", "x", method="ablation")


def test_weights_may_change_between_runs() -> None:
    """Training, adapters: nothing that was encoded before is used again, and the fingerprint follows."""
    model = copy.deepcopy(tiny.model())
    explainer = ap.Explainer((model, tiny.tokenizer()))
    prompt = ap.Template("The same long beginning every time. {a} {b}", {"a": "x", "b": "y"})
    before = explainer.attribute(prompt, "z", method="shapley")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    after = explainer.attribute(prompt, "z", method="shapley")
    fresh = ap.Explainer((model, tiny.tokenizer())).attribute(prompt, "z", method="shapley")
    assert (after.values == fresh.values).all()
    assert (after.values != before.values).any()
    assert after.provenance.fingerprint == fresh.provenance.fingerprint != before.provenance.fingerprint


class InPlace(Entropy):
    """Changes what it is given, and asks for gradients of it."""

    def __call__(self, scores: ap.Scores, target: ap.Target) -> torch.Tensor:
        assert scores.logits is not None
        scores.logits.mul_(0.5).requires_grad_().sum().backward()
        return super().__call__(scores, target).detach()


def test_target_functions_get_ordinary_tensors(explainer: ap.Explainer) -> None:
    assert explainer.attribute("a b", "xy", method="ablation", target_fn=InPlace()).full_value is not None


def test_results_travel_between_processes(recorded: ap.Explainer) -> None:
    result = recorded.attribute("a b", "xy")
    travelled = pickle.loads(pickle.dumps(result))
    assert (travelled.values == result.values).all()
    assert copy.deepcopy(result).provenance == result.provenance
    assert travelled.plot("bar") is not None


class BrokenObserver:
    @ap.hookimpl
    def apportion_on_progress(self) -> None:
        raise OSError("disk full")


def test_a_broken_observer_of_progress_only_warns() -> None:
    explainer = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[BrokenObserver()])
    with pytest.warns(RuntimeWarning, match="failed in apportion_on_progress: OSError"):
        assert explainer.attribute("a b", "xy").values.shape == (2,)
    with pytest.warns(RuntimeWarning), pytest.raises(ap.InputError, match="The prompt must not be empty"):
        explainer.attribute("")


def test_budgets_may_be_numpy_numbers_and_targets_arrays(explainer: ap.Explainer) -> None:
    result = explainer.attribute("a b", np.array([40, 41]), budget=np.int64(4), seed=np.int32(1))
    assert len(result.target_tokens) == 2
    assert (result.provenance.budget, result.provenance.seed) == (4, 1)
    assert ap.Attribution.load is not None
    assert isinstance(result.provenance.budget, int)


def test_auto_counts_what_alternatives_cost(explainer: ap.Explainer) -> None:
    prompt = ap.Template("{a} {b}", {"a": "x", "b": "y"}, {"a": ["p", "q"], "b": ["r", "s"]})
    enough = explainer.attribute(prompt, "z", budget=16)
    assert enough.provenance.method_reason == (
        "all 2^2 = 4 coalitions of 4 evaluations each fit the budget of 16 evaluations"
    )
    with pytest.raises(ap.BudgetError, match=r"at least 16 evaluations.*the budget of 15 evaluations is too small"):
        explainer.attribute(prompt, "z", budget=15)


def test_tokens_that_the_model_does_not_know_are_refused() -> None:
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_tokens([f"<extra{i}>" for i in range(9)])
    explainer = ap.Explainer((tiny.model(), tokenizer), plugins=[Refusing()])
    with pytest.raises(ap.InputError, match=r"token id \d+, but the model's vocabulary has 260.*own tokenizer"):
        explainer.attribute("a <extra8>", "b", method="ablation")


def test_generation_ends_at_the_context_length() -> None:
    explainer = ap.Explainer((tiny.model("gpt2"), tiny.tokenizer()))
    text = "a" * 500
    result = explainer.attribute(ap.Text(text, by=lambda t: [t[:250], t[250:]]), method="ablation")
    assert 1 <= len(result.target_tokens) <= 12


def test_end_of_progress_is_reported_on_errors_too(recorder: Recorder, recorded: ap.Explainer) -> None:
    with pytest.raises(ap.InputError):
        recorded.attribute("")
    assert recorder.stages == ["end"]


def test_arguments_of_the_wrong_kind_are_refused_everywhere(explainer: ap.Explainer, tmp_path: Path) -> None:
    result = explainer.attribute("one two", " x")
    for call, message in (
        (lambda: result.plot(None), r"plot\(None\): give the name of a view"),
        (lambda: result.plot(3), r"plot\(3\)"),
        (lambda: result.plot("bar", dpi=10**400), r"dpi=about 10\^400 must be a number of at least 10"),
        (lambda: result.plot("bar", dpi=3), "dpi=3 must be"),
        (lambda: result.save(None), r"save\(None\): give the path of a file"),
        (lambda: result.save(tmp_path / "x\0.json"), "give the path of a file"),
        (lambda: ap.Attribution.load(None), r"load\(None\)"),
        (lambda: explainer.evaluate(result, options={1: {}}), r"options=\{1: \{\}\} must hold a dict for each metric"),
        (lambda: explainer.refine(10**5000, budget=9), "must be an Attribution, not int: about"),
        (lambda: ap.Template("{a}", {"a": "x"}, groups=3), "groups=3 must be a list of tuples"),
        (lambda: ap.Template("{a}", {"a": "x"}, groups=[()]), "must be a tuple of one slot or more"),
        (lambda: ap.Template("{a}", {"a": "x"}, groups=[("a", "a")]), "names the slot 'a' twice"),
        (lambda: ap.Documents("q", [["a"]]), r"must not be empty; it is \['a'\]\.$"),
        (lambda: explainer.attribute("a b", " x", method=int), "method=int is a class of Python"),
        (lambda: explainer.attribute("a b", stop="."), r"no argument 'stop'. Write generate=\{'stop'"),
        (lambda: ap.Explainer((None, None)), r"first of a pair \(model, tokenizer\) is a model object, and not None"),
        (lambda: ap.Explainer((torch.nn.Linear(1, 1), None)), "the model has no name to find one by"),
    ):
        with pytest.raises(ap.InputError, match=message):
            call()


def test_the_smallest_limit_of_all_spends_the_budget(explainer: ap.Explainer) -> None:
    result = explainer.attribute("a b c d e f g h", " x", method="kernel_shap", budget=60, until=1e-300)
    assert any("The budget was spent before" in note for note in result.provenance.notes)

"""Gradient methods: by hand on the plain model, by finite differences, complete, counted, and beside their peers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import apportion as ap
from apportion.testing import tiny
from apportion.testing.explainers import tiny_explainer
from apportion_plugins.methods.token_scores import AGGREGATORS, Summary, TokenScores
from apportion_plugins.methods.vocabulary_paths import STRATEGIES, VocabularyPaths

WORDS, TARGET = "one two three", " xyz"
BASE = tiny.tokenizer()("_")["input_ids"][0]
KNOWN = len(tiny.tokenizer())
TOKENS = ap.Text(WORDS, by="tokens")
METHODS = (
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "gradient_shap",
    "discretized_integrated_gradients",
    "sequential_integrated_gradients",
)
PATHS = METHODS[2:]
SMALL: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 6},
    "gradient_shap": {"n_samples": 6},
    "discretized_integrated_gradients": {"steps": 6},
    "sequential_integrated_gradients": {"steps": 3},
}
FAMILIES = ("llama", "gpt2", "qwen3", "gemma3", "mixtral", "opt", "t5", "bart")
DIFFERENTIABLE: dict[str, dict[str, Any]] = {
    "log_prob": {},
    "prob": {},
    "crossentropy": {},
    "perplexity": {},
    "logit": {},
    "entropy": {},
    "kl_divergence": {"target_options": {"reference": "another prompt"}},
    "pcxmi": {},
    "in_context_pvi": {},
    "contrast_prob": {"contrast": " no"},
    "contrast_prob_diff": {"contrast": " no"},
    "contrast_logits": {"contrast": " no"},
    "contrast_logits_diff": {"contrast": " no"},
    "contrast_log_prob_diff": {"contrast": " no"},
}


ROUNDING = 1e-6
"""Llama computes norms in fp32, whatever its dtype."""


@pytest.fixture(scope="module")
def llama() -> Iterator[ap.Explainer]:
    with tiny_explainer() as explainer:
        yield explainer


@pytest.fixture(scope="module")
def started() -> Iterator[ap.Explainer]:
    """With a start token before every prompt."""
    with tiny_explainer(adds_start=True) as explainer:
        yield explainer


class Plain:
    """The transformers model itself: values of embeddings, one prompt at a time, without any code of apportion."""

    def __init__(self, prompt: str, target: str, *, adds_start: bool = False) -> None:
        self.model, tokenizer = tiny.model(), tiny.tokenizer(adds_start=adds_start)
        self.target = tokenizer(target, add_special_tokens=False)["input_ids"]
        self.own = self.embedded(tokenizer(prompt)["input_ids"])
        self.after = self.embedded(self.target[:-1])

    def embedded(self, ids: Sequence[int]) -> Tensor:
        return self.model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long)).detach()

    def values(self, prompt: Tensor) -> Tensor:
        """Log-probability of the whole target, then of each token."""
        read = torch.cat([prompt, self.after])[None]
        logits = self.model(inputs_embeds=read, use_cache=False).logits[0, len(prompt) - 1 :]
        tokens = logits.log_softmax(-1)[torch.arange(len(self.target)), torch.tensor(self.target)]
        return torch.cat([tokens.sum()[None], tokens])

    def gradients(self, prompt: Tensor) -> Tensor:
        """Of every output, from a forward and a backward pass for each; Float[K, P, D]."""
        found = []
        for output in range(1 + len(self.target)):
            point = prompt.clone().requires_grad_()
            found += torch.autograd.grad(self.values(point)[output], point)
        return torch.stack(found)

    def integrated(self, start: Tensor, steps: int) -> Tensor:
        places, weights = np.polynomial.legendre.leggauss(steps)
        path, total = self.own - start, torch.zeros(1)
        for place, weight in zip((1 + places) / 2, weights / 2, strict=True):
            total = total + weight * self.gradients(start + place * path)
        return total * path


def columns(result: ap.Attribution) -> np.ndarray:
    """Values of the whole target and of each token; Float[K, F]."""
    return np.concatenate([result.values[None], result.token_values])


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_gradients_at_the_prompt_by_hand(llama: ap.Explainer) -> None:
    plain = Plain(WORDS, TARGET)
    slopes = plain.gradients(plain.own)
    for method, options, expected in (
        ("saliency", {}, slopes.norm(dim=-1)),
        ("saliency", {"aggregate": "sum"}, slopes.sum(-1)),
        ("input_x_gradient", {}, (slopes * plain.own).sum(-1)),
    ):
        found = llama.attribute(TOKENS, TARGET, method=method, **options)
        np.testing.assert_allclose(columns(found), expected, atol=ROUNDING)
        assert found.full_value == pytest.approx(float(plain.values(plain.own)[0].detach()))
        assert found.provenance.evaluations == 1


@pytest.mark.parametrize("whole", [False, True])
def test_integrated_gradients_by_a_straight_loop(started: ap.Explainer, whole: bool) -> None:
    """On every token, or on those of features: then the start token keeps its embedding and has no score."""
    plain = Plain(WORDS, TARGET, adds_start=True)
    start = plain.embedded([BASE]).expand_as(plain.own).clone()
    if not whole:
        start[0] = plain.own[0]
    expected = plain.integrated(start, 5).sum(-1)
    found = started.attribute(TOKENS, TARGET, method="integrated_gradients", baseline="_", steps=5, whole_prompt=whole)
    np.testing.assert_allclose(columns(found), expected[:, 1:], atol=ROUNDING)
    assert (found.extras["special_share"] > 0) == whole
    share = float(expected[0, 0].abs() / expected[0].abs().sum())
    assert found.extras["special_share"] == pytest.approx(share)
    start_value, end_value = plain.values(start).detach(), plain.values(plain.own).detach()
    np.testing.assert_allclose(found.extras["baseline_value"], start_value, atol=ROUNDING)
    np.testing.assert_allclose(
        found.extras["convergence_delta"], expected.sum(1) - (end_value - start_value), atol=ROUNDING
    )


def test_sequential_integrated_gradients_by_a_straight_loop(llama: ap.Explainer) -> None:
    """For each token alone; the others stay as they are."""
    plain = Plain("abc", TARGET)
    found = llama.attribute(
        ap.Text("abc", by="tokens"), TARGET, method="sequential_integrated_gradients", baseline="_", steps=4
    )
    for i in range(3):
        start = plain.own.clone()
        start[i] = plain.embedded([BASE])[0]
        expected = plain.integrated(start, 4)[:, i].sum(-1)
        np.testing.assert_allclose(columns(found)[:, i], expected, atol=ROUNDING)
        change = (plain.values(plain.own) - plain.values(start)).detach()
        np.testing.assert_allclose(found.extras["convergence_delta"][i], expected - change, atol=ROUNDING)


def monotonic_path(
    table: Tensor, word: int, base: Tensor, base_id: int, strategy: str, steps: int, near: int
) -> Tensor:
    """The paper's construction for one word, number by number."""

    def between(anchor: Tensor, point: Tensor) -> Tensor:
        return ((anchor - point) * (anchor - base) <= 0) & ((point != base) | (anchor == base))

    def moved(anchor: Tensor, point: Tensor) -> Tensor:
        return torch.where(between(anchor, point), anchor, point - (point - base) / steps)

    def cost(anchor: Tensor, point: Tensor) -> float:
        if strategy == "greedy":
            return float((anchor - moved(anchor, point)).norm())
        return -int(between(anchor, point).sum())

    path, points = [word], [table[word]]
    for _ in range(steps - 2):
        here = table[path[-1]]
        order = sorted((i for i in range(len(table)) if i != path[-1]), key=lambda i: float((table[i] - here).norm()))
        free = [i for i in order[:near] if i not in path and i != base_id]
        path.append(min(free, key=lambda i: cost(table[i], here)))
        points.append(moved(table[path[-1]], points[-1]))
    return torch.stack([*points, base]).flip(0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_paths_along_the_vocabulary(strategy: str) -> None:
    table = tiny.model().get_input_embeddings().weight.detach()
    words, base = torch.tensor([97, 98, 257]), table[95]
    stay = torch.tensor([False, False, True])
    found = VocabularyPaths(table, 12, 8, strategy)(words, base.expand(3, -1), 95, stay)
    for i in range(2):
        expected = monotonic_path(table, int(words[i]), base, 95, strategy, 8, 12)
        np.testing.assert_allclose(found[:, i], expected, atol=1e-12)
    assert torch.equal(found[:, 2], torch.stack([base, *[table[257]] * 7]))
    assert torch.equal(found[0], base.expand(3, -1))
    assert torch.equal(found[-1], table[words])
    steps = found.diff(dim=0)
    assert bool((steps * (table[words] - base) >= -1e-12).all()), "A dimension goes back."


def test_a_path_without_new_neighbours_ends_at_the_baseline() -> None:
    table = torch.eye(3, dtype=torch.float64)
    found = VocabularyPaths(table, 50, 6, "greedy")(torch.tensor([0, 1]), table[1].expand(2, -1), 1, torch.zeros(2) > 0)
    assert torch.equal(found[:4, 0], table[1].expand(4, -1)), "One neighbour is left, and then none."
    assert torch.equal(found[:, 1], table[1].expand(6, -1)), "A word that is the baseline never leaves it."


def test_discretized_integrated_gradients_by_a_straight_loop(llama: ap.Explainer) -> None:
    plain, table = Plain("abc", TARGET), tiny.model().get_input_embeddings().weight.detach()
    words = tiny.tokenizer()("abc")["input_ids"]
    paths = [monotonic_path(table[:KNOWN], word, table[BASE], BASE, "greedy", 6, 20) for word in words]
    path = torch.stack(paths, dim=1)
    expected = sum(plain.gradients(here) * (after - here) for here, after in pairwise(path)).sum(-1)
    found = llama.attribute(ap.Text("abc", by="tokens"), TARGET, method=PATHS[2], baseline="_", steps=6, neighbors=20)
    np.testing.assert_allclose(columns(found), expected, atol=ROUNDING)
    change = (plain.values(plain.own) - plain.values(path[0])).detach()
    np.testing.assert_allclose(found.extras["convergence_delta"], expected.sum(1) - change, atol=ROUNDING)


# --- finite differences -----------------------------------------------------------------------------------------------


class Differences:
    """Values of features by central differences: Σ over points of the slope towards each feature's direction."""

    estimand, requires = "finite differences", frozenset({ap.Capability.GRADIENTS})

    def __init__(
        self, places: Sequence[float], weights: Sequence[float], direction: Callable[[Tensor], Tensor]
    ) -> None:
        self.places, self.weights, self.direction = places, weights, direction

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        inside, step = game.inside(), 1e-3
        own = inside.embeddings()
        found = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
        mine = torch.tensor([[owner == feature for owner in inside.feature_of] for feature in range(game.n_features)])
        path = self.direction(own) * mine.any(0)[:, None]
        with torch.no_grad():
            for place, weight in zip(self.places, self.weights, strict=True):
                there = own - (1 - place) * path
                moves = step * mine[:, :, None] * path
                up, down = inside.values(there + moves), inside.values(there - moves)
                found += weight * (up - down) / (2 * step)
        return ap.Estimate(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_target_function_against_finite_differences(family: str) -> None:
    """The whole target and each of its tokens."""
    # Others compute norms in fp32; the step of a difference may cross a kink.
    allowed = {"gpt2": 1e-4, "bart": 1e-4, "t5": 2e-2}.get(family, 5e-3)
    width = tiny.model(family).get_input_embeddings().embedding_dim
    direction = 0.03 * torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places, weights = np.polynomial.legendre.leggauss(2)
    at_end, on_path = ([1.0], [1.0]), ((1 + places) / 2, weights / 2)
    ways = {
        "saliency": ({"keep_dims": True}, Differences(*at_end, direction.expand_as)),
        "input_x_gradient": ({}, Differences(*at_end, lambda own: own)),
        "integrated_gradients": (
            {"baseline": np.full(width, 0.01), "steps": 2},
            Differences(*on_path, lambda own: own - 0.01),
        ),
    }
    with tiny_explainer(family=family) as explainer:
        for target_fn, options in DIFFERENTIABLE.items():
            call = {"target_fn": target_fn, **options}
            for method, (settings, differences) in ways.items():
                found = explainer.attribute("ab cd", " xy", method=method, **call, **settings)
                again = columns(explainer.attribute("ab cd", " xy", method=differences, **call))
                values = columns(found)
                if method == "saliency":
                    dims = np.concatenate([found.extras["dims"][None], found.extras["token_dims"]])
                    values = dims @ direction.numpy()
                size = np.abs(again).max()
                assert size > 1e-6
                np.testing.assert_allclose(
                    values, again, atol=allowed * size + 5e-6, err_msg=f"{method} of {target_fn}"
                )


# --- completeness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_integrated_gradients_are_complete(family: str) -> None:
    """Their sum is the change of the score, which other methods find by coalitions."""
    # Kinks of the ReLU, and jumps from one expert to another.
    allowed = 0.05 if family in ("opt", "t5", "mixtral") else 0.01
    replaced = ap.Text(WORDS, by="tokens", baseline=BASE)
    with tiny_explainer(family=family) as explainer:
        absent = explainer.attribute(replaced, TARGET, method="permutation", budget=40)
        found = explainer.attribute(TOKENS, TARGET, method="integrated_gradients", baseline=BASE)
    assert found.extras["baseline_value"][0] == pytest.approx(absent.base_value, abs=ROUNDING)
    assert found.full_value == pytest.approx(absent.full_value, abs=ROUNDING)
    change = absent.full_value - absent.base_value
    assert found.values.sum() == pytest.approx(change, rel=allowed)
    assert found.extras["convergence_delta"][0] == pytest.approx(found.values.sum() - change, abs=ROUNDING)
    np.testing.assert_allclose(found.token_values.sum(0), found.values, atol=ROUNDING)


@pytest.mark.parametrize(
    ("rule", "error"), [("gausslegendre", 1e-5), ("riemann_trapezoid", 0.02), ("riemann_middle", 0.02)]
)
def test_rules_of_integration(llama: ap.Explainer, rule: str, error: float) -> None:
    options = {"method": "integrated_gradients", "baseline": "_", "per_token": False}
    exact = llama.attribute(WORDS, TARGET, **options, steps=64).values
    found = llama.attribute(WORDS, TARGET, **options, steps=32, rule=rule).values
    np.testing.assert_allclose(found, exact, atol=error * np.abs(exact).max())
    sides = [
        llama.attribute(WORDS, TARGET, **options, steps=32, rule=f"riemann_{side}").values for side in ("left", "right")
    ]
    np.testing.assert_allclose(np.mean(sides, axis=0), exact, atol=0.02 * np.abs(exact).max())


def test_a_large_delta_is_pointed_out(llama: ap.Explainer) -> None:
    for method in PATHS[:1] + PATHS[2:]:
        rough = llama.attribute(WORDS, TARGET, method=method, baseline="_", steps=2)
        assert any(
            "convergence_delta" in note and "use more than 2 steps" in note for note in rough.provenance.notes
        ), method
    fine = llama.attribute(WORDS, TARGET, method="integrated_gradients", baseline="_")
    assert not any("convergence" in note for note in fine.provenance.notes)


# --- GradientSHAP -----------------------------------------------------------------------------------------------------


def test_expected_gradients_of_one_baseline_are_integrated_gradients(llama: ap.Explainer) -> None:
    truth = llama.attribute(WORDS, TARGET, method="integrated_gradients", baseline="_")
    found = llama.attribute(WORDS, TARGET, method="gradient_shap", baseline="_", n_samples=300)
    off = np.abs(columns(found) - columns(truth)) / np.concatenate([found.std_error[None], found.token_std_error])
    assert off.max() < 4.5
    assert off.mean() > 0.2, "The errors are too large."
    assert found.top_agreement is not None


def test_draws_of_gradient_shap(llama: ap.Explainer) -> None:
    def run(**options: Any) -> np.ndarray:
        return llama.attribute(WORDS, TARGET, method="gradient_shap", n_samples=5, **options).values

    np.testing.assert_array_equal(run(seed=3), run(seed=3))
    assert not np.array_equal(run(seed=3), run(seed=4))
    both = [run(baseline=[one], seed=1) for one in ("_", "zero")]
    mixed = run(baseline=["_", "zero"], seed=1)
    assert not any(np.array_equal(mixed, one) for one in both)
    assert not np.allclose(run(stdevs=0.1, baseline="_", seed=1), run(stdevs=1e-9, baseline="_", seed=1), rtol=1e-3)
    noisy = llama.attribute(WORDS, TARGET, method="gradient_shap", n_samples=5, aggregate="l2")
    assert np.isnan(noisy.std_error).all()


# --- counts and cost --------------------------------------------------------------------------------------------------


def test_evaluations_and_tokens_are_counted(started: ap.Explainer) -> None:
    """The start token, which no feature has, is read once; an estimate says the same beforehand."""
    prompt, target, features = 13, 4, 3
    for method, rows in (
        ("integrated_gradients", 6 + 2),
        ("gradient_shap", 6),
        ("discretized_integrated_gradients", 6),
        ("sequential_integrated_gradients", features * (3 + 1) + 1),
    ):
        for options in ({}, {"per_token": False}):
            arguments = {"method": method, **SMALL[method], **options}
            made = started.attribute(WORDS, TARGET, **arguments).provenance
            assert made.evaluations == rows, method
            assert made.forwarded_tokens == 1 + rows * (prompt + target - 1), method
            cost = started.estimate(WORDS, TARGET, **arguments)
            assert (cost.evaluations, cost.forwarded_tokens) == (made.evaluations, made.forwarded_tokens)
            with pytest.raises(ap.BudgetError, match=f"{rows} evaluations, and the budget is {rows - 1}"):
                started.attribute(WORDS, TARGET, **arguments, budget=rows - 1)
            assert started.attribute(WORDS, TARGET, **arguments, budget=rows).provenance.evaluations == rows


def test_the_whole_target_alone_takes_one_backward_pass(
    llama: ap.Explainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has no values of tokens, and no view or table pretends that it has."""
    llama.attribute(WORDS, TARGET, method="saliency")  # checks the target function once
    passes, real = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: passes.append(1) or real(*args, **options))
    full = llama.attribute(WORDS, TARGET, method="input_x_gradient")
    each = len(passes)
    alone = llama.attribute(WORDS, TARGET, method="input_x_gradient", per_token=False)
    assert len(passes) - each == each - len(TARGET) + 1, "One backward pass, and what every run needs."
    np.testing.assert_allclose(alone.values, full.values, atol=ROUNDING)
    assert np.isnan(alone.token_values).all()
    assert not alone.has_token_values
    again = ap.Attribution.load(alone.save(tmp_path / "alone.json"))
    assert np.isnan(again.token_values).all()
    with pytest.raises(ap.ResultError, match="only the whole target was scored"):
        again.to_dataframe("tokens")
    assert not re.search(r"\bnan\b", again.plot("html"), re.IGNORECASE)
    assert again.plot("heatmap").axes
    assert not re.search(r"\bnan\b", repr(again), re.IGNORECASE)


# --- features, sinks, aggregation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_features_of_several_tokens(started: ap.Explainer, method: str) -> None:
    """Words have the sums of their tokens; text and tokens between them keep their embeddings."""
    options = {"method": method, "aggregate": "sum", "seed": 5, **SMALL.get(method, {})}
    template = ap.Template("{a} and {b}", {"a": "ab", "b": "cd"}, {"a": "x", "b": "y"})
    prompts = [template, ap.Text("ab and cd", by=lambda text: ["ab", " and ", "cd"], keep=[" and "])]
    first, second = (started.attribute(prompt, TARGET, **options) for prompt in prompts)
    np.testing.assert_allclose(columns(first), columns(second), atol=ROUNDING)
    if method in METHODS[:2]:
        tokens = started.attribute(ap.Text("ab and cd", by="tokens"), TARGET, **options)
        np.testing.assert_allclose(first.values, [tokens.values[:2].sum(), tokens.values[-2:].sum()], atol=ROUNDING)
        assert first.extras["special_share"] > tokens.extras["special_share"] > 0
    else:
        assert first.extras["special_share"] == 0


def test_aggregators(llama: ap.Explainer) -> None:
    """Each takes all dimensions of all tokens of a feature; only magnitudes are unsigned, and say so."""
    dims = np.array(llama.attribute(TOKENS, TARGET, method="saliency", keep_dims=True).extras["dims"], dtype=float)
    first = dims[:3].ravel()  # the tokens of "one"
    expected = {
        "sum": first.sum(),
        "mean": first.mean(),
        "max": first[np.abs(first).argmax()],
        "l2": np.linalg.norm(first),
        "abs_sum": np.abs(first).sum(),
        "abs_mean": np.abs(first).mean(),
        "abs_max": np.abs(first).max(),
    }
    assert set(expected) == set(AGGREGATORS)
    estimands = set()
    for aggregate, value in expected.items():
        found = llama.attribute(WORDS, TARGET, method="saliency", aggregate=aggregate)
        assert found.values[0] == pytest.approx(value, rel=1e-5), aggregate
        estimands.add(found.estimand)
        assert found.signed == (aggregate in ("sum", "mean", "max"))
    assert len(estimands) == len(AGGREGATORS)
    plain = llama.attribute(WORDS, TARGET, method="saliency")
    assert (plain.estimand, plain.unit) == ("gradient norm", "nats per unit")
    assert llama.attribute(WORDS, TARGET, method="input_x_gradient").unit == "nats"


@pytest.mark.parametrize("method", METHODS)
def test_dimensions_are_kept_on_request(llama: ap.Explainer, method: str, tmp_path: Path) -> None:
    options = {"method": method, "aggregate": "sum", **SMALL.get(method, {})}
    found = llama.attribute(WORDS, TARGET, keep_dims=True, **options)
    dims, tokens = found.extras["dims"], found.extras["token_dims"]
    assert (dims.shape, tokens.shape) == ((3, 32), (len(TARGET), 3, 32))
    np.testing.assert_allclose(dims.sum(1), found.values, atol=1e-5 * np.abs(dims).sum())
    np.testing.assert_allclose(tokens.sum(-1), found.token_values, atol=1e-5 * np.abs(tokens).sum())
    path = found.save(tmp_path / "dims.json")
    np.testing.assert_array_equal(np.array(ap.Attribution.load(path).extras["dims"], dtype=np.float32), dims)
    written = max(map(len, path.read_text().split('"extras"')[1].split('"dims"')[1].split("]")[0].split()))
    assert written <= len("-1.2345678e-05,")
    assert "dims" not in llama.attribute(WORDS, TARGET, **options).extras


def test_normalised_values(started: ap.Explainer) -> None:
    plain = started.attribute(TOKENS, TARGET, method="input_x_gradient")
    features = started.attribute(TOKENS, TARGET, method="input_x_gradient", normalize="features")
    everything = started.attribute(TOKENS, TARGET, method="input_x_gradient", normalize="all")
    np.testing.assert_allclose(np.abs(columns(features)).sum(1), 1)
    np.testing.assert_allclose(np.sign(features.values), np.sign(plain.values))
    expected = Plain(WORDS, TARGET, adds_start=True)
    start = (expected.gradients(expected.own) * expected.own).sum(-1)[:, 0].abs().numpy()
    total = np.abs(columns(plain)).sum(1) + start
    np.testing.assert_allclose(columns(everything), columns(plain) / total[:, None], atol=ROUNDING)
    assert features.unit == everything.unit == "share"
    assert any("was left out" in note for note in features.provenance.notes)
    assert any("features have" in note for note in everything.provenance.notes)
    samples = started.attribute(WORDS, TARGET, method="gradient_shap", normalize="features")
    raw = started.attribute(WORDS, TARGET, method="gradient_shap")
    np.testing.assert_allclose(samples.std_error / raw.std_error, samples.values / raw.values)


def test_a_sink_is_pointed_out(started: ap.Explainer) -> None:
    """A note says so if most of the scores fall on the start token."""
    found: list[ap.Estimate] = []

    class Sink:
        estimand, requires = "sink", frozenset({ap.Capability.GRADIENTS})

        def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
            inside = game.inside()
            scores = torch.ones(game.n_outputs, len(inside.prompt_ids), 2)
            scores[:, 0] *= 100
            summary = Summary("sum", keep_dims=True)
            found.append(
                summary.estimate(
                    TokenScores(scores), inside, n_features=game.n_features, n_outputs=game.n_outputs, estimand="sink"
                )
            )
            return found[0]

    result = started.attribute(TOKENS, TARGET, method=Sink())
    assert result.extras["special_share"] == pytest.approx(100 / (100 + len(WORDS)))
    assert any("88% of the scores' magnitude falls on special tokens" in note for note in result.provenance.notes)
    assert result.values.tolist() == [2.0] * len(WORDS)


# --- the target's own tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_tokens_of_the_target_as_features(llama: ap.Explainer, method: str) -> None:
    """None depends on itself or on later ones; the sums over all features are complete."""
    options = {"method": method, "aggregate": "sum", **SMALL.get(method, {})}
    found = llama.attribute(WORDS, TARGET, attribute_generated=True, **options)
    block = found.token_values[:, found.generated_part]
    assert block.shape == (len(TARGET), len(TARGET) - 1)
    assert not np.triu(block).any()
    assert block[np.tril_indices(len(TARGET) - 1)[0] + 1, np.tril_indices(len(TARGET) - 1)[1]].all()
    if method in METHODS[:2]:
        alone = llama.attribute(WORDS, TARGET, **options)
        np.testing.assert_allclose(found.token_values[:, found.prompt_part], alone.token_values, atol=ROUNDING)
    if method in ("integrated_gradients", "discretized_integrated_gradients"):
        change = found.full_value - found.extras["baseline_value"][0]
        assert found.values.sum() == pytest.approx(change + found.extras["convergence_delta"][0], abs=ROUNDING)
    whole = llama.attribute(WORDS, TARGET, attribute_generated=True, per_token=False, **options)
    np.testing.assert_allclose(whole.values, found.values, atol=ROUNDING)
    assert np.isnan(whole.token_values).all()


# --- models and options -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_half_precision(method: str) -> None:
    """Points stay in fp32, so that steps smaller than the model's rounding are not lost."""
    options = {"method": method, "aggregate": "sum", **SMALL.get(method, {})}
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        with ap.Explainer((tiny.model(dtype=dtype), tiny.tokenizer()), progress=False) as explainer:
            found.append(explainer.attribute(WORDS, TARGET, keep_dims=True, **options))
    fine, rough = (np.asarray(one.extras["dims"]).ravel() for one in found)
    assert np.corrcoef(fine, rough)[0, 1] > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_small_batches_give_the_same(llama: ap.Explainer, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"method": method, **SMALL.get(method, {})}
    expected = llama.attribute(WORDS, TARGET, **options)
    from apportion.game.inside import GameInside

    monkeypatch.setattr(GameInside, "batch_rows", property(lambda self: 2))
    np.testing.assert_allclose(columns(llama.attribute(WORDS, TARGET, **options)), columns(expected), atol=ROUNDING)


@pytest.mark.parametrize("method", METHODS)
def test_a_contrast(llama: ap.Explainer, method: str) -> None:
    """The log-odds of two targets: the difference of the results of each."""
    options = {"method": method, "aggregate": "sum", **SMALL.get(method, {})}
    both = llama.attribute(WORDS, " x", contrast=" y", target_fn="contrast_log_prob_diff", **options)
    target, contrast = (llama.attribute(WORDS, text, **options) for text in (" x", " y"))
    np.testing.assert_allclose(both.values, target.values - contrast.values, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregate": "summ"}, "No aggregator is called 'summ'. Did you mean 'sum'"),
        ({"normalize": True}, "No normalisation is called"),
        ({"keep_dims": 1}, "keep_dims=1 must be True or False"),
        ({"per_token": "no"}, "per_token='no' must be True or False"),
        ({"whole_prompt": 0}, "whole_prompt=0 must be True or False"),
        ({"steps": 0}, "steps=0 must be a whole number of at least 1"),
        ({"steps": 1, "rule": "riemann_trapezoid"}, "of at least 2"),
        ({"rule": "gauss"}, "No rule of integration is called"),
        ({"baseline": -1}, "baseline=-1 must be 'zero', 'mean'"),
        ({"baseline": 1.5}, "must be 'zero', 'mean'"),
        ({"baseline": 260}, "baseline=260 is not the id of a token; ids are from 0 to 257"),
        ({"baseline": "pad"}, "this tokenizer has no padding token"),
        ({"baseline": "unk"}, "has no token for unknown text"),
        ({"baseline": "two"}, "baseline='two' is 3 tokens, and must be one"),
        ({"baseline": np.zeros(7)}, r"has the shape \[7\]. For this prompt and model, it may be \[32\], or \[13, 32\]"),
        ({"method": "gradient_shap", "baseline": []}, "must have at least one baseline"),
        ({"method": "gradient_shap", "stdevs": -1}, "stdevs=-1 must be a number of at least 0"),
        ({"method": "gradient_shap", "n_samples": 0}, "n_samples=0"),
        ({"method": PATHS[2], "strategy": "best"}, "No strategy is called 'best'"),
        ({"method": PATHS[2], "neighbors": 0}, "neighbors=0"),
        ({"method": PATHS[2], "steps": 1}, "steps=1 must be a whole number of at least 2"),
    ],
)
def test_wrong_options_are_refused(llama: ap.Explainer, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ap.InputError, match=message):
        llama.attribute(WORDS, TARGET, **{"method": "integrated_gradients"} | options)


def test_baselines(llama: ap.Explainer) -> None:
    """A token by its text, its id and its embedding, for each token of the prompt or for all, are the same."""
    table = tiny.model().get_input_embeddings().weight.detach()

    def run(baseline: Any) -> np.ndarray:
        return llama.attribute(WORDS, TARGET, method="integrated_gradients", baseline=baseline, steps=4).values

    for same in (BASE, np.int64(BASE), table[BASE], table[BASE].expand(13, -1).numpy()):
        np.testing.assert_allclose(run(same), run("_"), atol=ROUNDING)
    np.testing.assert_allclose(run("mean"), run(table[:KNOWN].mean(0)), atol=ROUNDING)
    np.testing.assert_allclose(run("zero"), run(torch.zeros(32)), atol=ROUNDING)
    np.testing.assert_allclose(run("</s>"), run(257), atol=ROUNDING)


def test_embeddings_as_a_baseline_in_files_and_views(llama: ap.Explainer, tmp_path: Path) -> None:
    for baseline in (np.full(32, 0.25), torch.full((32,), 0.25)):
        found = llama.attribute(WORDS, TARGET, method="integrated_gradients", baseline=baseline, steps=4)
        again = ap.Attribution.load(found.save(tmp_path / "result.json"))
        assert again.provenance.options["baseline"] == [0.25] * 32
        assert again.plot("html").count("0.25, ") < 40
        assert "baseline=array of shape [32]" in found.plot("html")


def test_a_gradient_that_is_not_finite_is_an_error(llama: ap.Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = llama.session.forward

    @contextmanager
    def broken(batch: ap.EmbeddedBatch, **options: Any) -> Iterator[Tensor]:
        with real(batch, **options) as logits:
            if logits.requires_grad:
                logits.register_hook(lambda slope: slope * torch.nan)
            yield logits

    monkeypatch.setattr(llama.session, "forward", broken)
    for method in (*METHODS, "deeplift", "layer_deeplift", "layer_gradient_x_activation", "layer_gradient_shap"):
        with pytest.raises(ap.ScoreError, match="A gradient is not finite"):
            llama.attribute(WORDS, TARGET, method=method, **SMALL.get(method, {}))


def test_a_score_that_is_least_at_the_prompt_has_no_gradient_there(llama: ap.Explainer) -> None:
    at_the_prompt = ("saliency", "input_x_gradient", "deeplift", "layer_deeplift", "layer_gradient_x_activation")
    for method in at_the_prompt:
        with pytest.raises(ap.CapabilityError, match="all gradients at the prompt are 0"):
            llama.attribute(WORDS, TARGET, method=method, target_fn="kl_divergence")
        for options in (
            {"target_fn": "kl_divergence", "target_options": {"reference": "empty"}},
            {"target_fn": "pcxmi", "target_options": {"reference": "full"}},
        ):
            assert np.abs(llama.attribute(WORDS, TARGET, method=method, **options).values).max() > 1e-4
    path = llama.attribute(WORDS, TARGET, method="integrated_gradients", target_fn="kl_divergence", steps=6)
    assert np.abs(path.values).max() > 1e-4


@pytest.mark.parametrize("method", ["gradient_shap", "layer_gradient_shap"])
def test_until_does_nothing_to_a_number_of_samples_and_says_so(llama: ap.Explainer, method: str) -> None:
    found = llama.attribute(WORDS, TARGET, method=method, n_samples=3, until=1e-9, budget=100)
    assert any(note.startswith("until=1e-09 had no effect") and "n_samples=" in note for note in found.provenance.notes)
    without = llama.attribute(WORDS, TARGET, method=method, n_samples=3)
    assert not any("until" in note for note in without.provenance.notes)

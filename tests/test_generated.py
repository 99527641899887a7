"""attribute_generated=True: the target's own tokens are features, too."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.game.game import Game
from apportion.game.possible import possible_features, within_possible
from apportion.protocols.features import Feature
from apportion.protocols.row import ModelInput
from apportion.scoring import readout
from apportion.testing import echo, reference, tiny
from apportion.testing.echo import EchoBackend, EchoSession, echo_logits

WORDS = ("one", "two", "three")
PROMPT, TARGET, T = " ".join(WORDS), " ab!", 4
F, N = len(WORDS), len(WORDS) + T - 1
IDS = tuple(tiny.tokenizer()(TARGET, add_special_tokens=False)["input_ids"])
START = (256,)

Score = Callable[[tuple[int, ...], int], torch.Tensor]
"""Values of one token after these ones."""

METHODS: dict[str, dict[str, Any]] = {
    "ablation": {},
    "occlusion": {},
    "shapley": {},
    "permutation": {"budget": 40},
    "kernel_shap": {"budget": 40},
    "gp_shap": {"budget": 40},
    "captum_kernel_shap": {"n_samples": 60},
    "banzhaf": {"budget": 40},
    "lime": {"budget": 40},
    "captum_lime": {"n_samples": 60},
    "context_cite": {"budget": 40},
    "hierarchical": {"budget": 10},
    "interactions": {"budget": 40},
    "auto": {"budget": 30},
}


@functools.cache
def model_score(family: str) -> Score:
    """One row at a time, whole, in float64."""
    model = tiny.model(family)
    return lambda before, token: reference.log_probs(model, list(before), [token])[0]


def coalition(number: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """The prompt's tokens, and which target tokens are present, in coalition ``number``."""
    bits = [bool(number >> i & 1) for i in range(N)]
    text = " ".join(word for word, here in zip(WORDS, bits, strict=False) if here)
    return tuple(tiny.tokenizer()(text)["input_ids"]) if text else START, tuple(bits[F:])


@functools.cache
def table(score: Score) -> torch.Tensor:
    """Log-probabilities of each token in every coalition, by the definition: ``[2^N, T]``."""
    rows = []
    for number in range(2**N):
        prompt, here = coalition(number)
        read = [(token,) if on else () for token, on in zip(IDS, here, strict=False)]
        rows.append([score(sum(read[:t], prompt), token) for t, token in enumerate(IDS)])
    return torch.tensor(rows, dtype=torch.float64)


def shapley(values: torch.Tensor) -> np.ndarray:
    """Exact Shapley values by permutations' weights: ``[T, N]``."""
    found = torch.zeros(values.shape[1], N, dtype=torch.float64)
    for number in range(2**N):
        size = number.bit_count()
        for i in range(N):
            if not number >> i & 1:
                found[:, i] += (values[number | 1 << i] - values[number]) / (N * math.comb(N - 1, size))
    return found.numpy()


def attribute(explainer: ap.Explainer, method: str = "shapley", **arguments: Any) -> ap.Attribution:
    return explainer.attribute(PROMPT, TARGET, method=method, attribute_generated=True, **arguments)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("share", [True, False])
def test_exact_values_are_those_of_the_definition(family: str, share: bool) -> None:
    with ap.Explainer((tiny.model(family), tiny.tokenizer()), share_prefixes=share) as explainer:
        result = attribute(explainer)
    values = table(model_score(family))
    np.testing.assert_allclose(result.token_values, shapley(values), atol=1e-9)
    np.testing.assert_allclose(result.values, shapley(values).sum(0), atol=1e-9)
    assert result.base_value == pytest.approx(float(values[0].sum()), abs=1e-9), "nothing is present, of the target too"
    assert result.full_value == pytest.approx(float(values[-1].sum()), abs=1e-9)
    assert result.feature_names == (*WORDS, "→ ␣", "→ a", "→ b")
    assert [feature.generated for feature in result.features] == [None, None, None, 0, 1, 2]


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_decoder_reads_what_is_left_of_the_target(family: str) -> None:
    model = tiny.model(family)
    with ap.Explainer((model, tiny.tokenizer())) as explainer:
        result, entropies = attribute(explainer), attribute(explainer, target_fn="entropy")
    values, spread = torch.zeros(2, 2**N, T, dtype=torch.float64)
    for number in range(2**N):
        prompt, here = coalition(number)
        for t, token in enumerate(IDS):
            read = tuple(one for one, on in zip(IDS[:t], here, strict=False) if on)
            logits = reference.logits(model, prompt, (*read, token))[-1]
            values[number, t], spread[number, t] = logits.log_softmax(-1)[token], entropy(logits)
    np.testing.assert_allclose(result.token_values, shapley(values), atol=1e-9)
    np.testing.assert_allclose(entropies.token_values, shapley(spread), atol=1e-9)


def test_leave_one_out_is_the_loss_of_later_tokens(explainer: ap.Explainer) -> None:
    score, result = model_score("llama"), attribute(explainer, "ablation")
    prompt = tuple(tiny.tokenizer()(PROMPT)["input_ids"])
    for j, feature in enumerate(result.generated_features):
        for t, token in enumerate(IDS):
            without = IDS[:j] + IDS[j + 1 : t] if t > j else IDS[:t]
            lost = float(score(prompt + IDS[:t], token) - score(prompt + without, token))
            assert result.token_values[t, F + j] == pytest.approx(lost, abs=1e-9), (feature, t)


@pytest.mark.parametrize("method", METHODS)
def test_a_token_gets_exactly_0_for_itself_and_for_what_comes_before_it(explainer: ap.Explainer, method: str) -> None:
    result = attribute(explainer, method, **METHODS[method])
    assert (result.token_values[~result.possible] == 0).all()
    assert (~result.possible).sum() == T * (T - 1) / 2
    assert np.abs(result.token_values[result.possible]).max() > 0.01
    if result.token_std_error is not None:
        assert (result.token_std_error[~result.possible] == 0).all()
    for name in ("token_interactions", "token_interactions_std_error"):
        for t, matrix in enumerate(result.extras.get(name, ())):
            assert not np.any(np.array(matrix)[F + t :]) and not np.any(np.array(matrix)[:, F + t :])
    if result.estimand in ("Shapley value", "Owen value") and method != "captum_kernel_shap":
        values = table(model_score("llama"))
        gap = result.token_values.sum(1) - (values[-1] - values[0]).numpy()
        np.testing.assert_allclose(gap, 0, atol=1e-9)
        assert result.efficiency_gap == pytest.approx(0, abs=1e-9)
    if method not in ("lime", "captum_lime", "context_cite"):
        np.testing.assert_allclose(result.token_values.sum(0), result.values, atol=1e-9)


def test_sampled_values_approach_the_exact_ones(explainer: ap.Explainer) -> None:
    exact = attribute(explainer)
    for method in ("permutation", "kernel_shap", "gp_shap", "interactions"):
        result = attribute(explainer, method, budget=56)
        assert np.abs(result.token_values - exact.token_values).max() < 0.05, method
        assert np.abs(result.values - exact.values).max() < 0.1, method


def test_a_group_that_was_not_expanded_is_shared_among_the_tokens_that_can_have_done_it() -> None:
    """Otherwise a token would take a part of what it cannot have caused."""
    with ap.Explainer((tiny.model(), tiny.tokenizer())) as explainer:
        result = explainer.attribute(
            PROMPT, TARGET, method="hierarchical", budget=3, branching=2, attribute_generated=True
        )
    groups = {row["text"]: row for row in result.extras["tree"]}
    assert set(groups) == {"prompt", "target"}
    np.testing.assert_allclose(result.token_values[2, F:], [groups["target"]["token_values"][2] / 2] * 2 + [0])


def test_what_is_impossible_is_divided_among_the_rest() -> None:
    possible = possible_features([Feature("a", "a"), Feature("b", "b"), Feature("→ x", "x", generated=0)], 2)
    assert possible.tolist() == [[True, True, True], [True, True, True], [True, False, True]]
    values = torch.tensor([[3.0, 1.0, 2.0], [4.0, 2.0, 2.0], [1.0, 0.5, 0.5]], dtype=torch.float64)
    estimate = ap.Estimate(values, torch.ones(3, 3), replicates=values[:, 0].repeat(2, 1))
    found = within_possible(estimate, possible, "Shapley value")
    assert found.values.tolist() == [[3.25, 1.25, 2.0], [4.25, 2.25, 2.0], [0.5, 0.0, 0.5]]
    assert found.replicates is not None and found.replicates[0].tolist() == [3.25, 4.25, 0.5]
    assert found.std_error is not None and found.std_error[2].tolist() == [1.0, 0.0, 1.0]
    assert within_possible(estimate, possible, "Banzhaf value").values[:, 1].tolist() == [1.0, 2.0, 0.0]


def test_values_that_only_rounding_tells_apart_are_the_same() -> None:
    """Batches round differently: a game makes outputs that a feature cannot affect exactly equal."""
    draw = torch.Generator().manual_seed(0)

    def score(rows: Any) -> torch.Tensor:
        tokens = torch.tensor([[row[0], row[0] + row[1]] for row in rows], dtype=torch.float64)
        tokens += 1e-6 * torch.rand(tokens.shape, generator=draw, dtype=torch.float64)
        return torch.cat([tokens.sum(1, keepdim=True), tokens], dim=1)

    possible = torch.tensor([[True, True, True], [True, False, True]])
    render = lambda mask: [tuple(row) for row in mask.tolist()]  # noqa: E731
    game = Game(["a", "→ x"], 3, render, score, possible=possible)
    full, without = game.values(torch.tensor([[True, True], [True, False]]))
    assert full[1] == without[1] and full[2] != without[2]
    assert without[0] == without[1:].sum(), "the tokens still add up to the whole"
    known = game.known(torch.tensor([True, False]))
    assert known is not None and torch.equal(known, without)


def test_absent_tokens_are_replaced_as_the_baseline_of_a_text_says(explainer: ap.Explainer) -> None:
    result = explainer.attribute(ap.Text(PROMPT, baseline="_"), TARGET, method="ablation", attribute_generated=True)
    score, mark = model_score("llama"), tuple(tiny.tokenizer()("_", add_special_tokens=False)["input_ids"])
    prompt = tuple(tiny.tokenizer()(PROMPT)["input_ids"])
    lost = float(score(prompt + IDS[:2], IDS[2]) - score(prompt + mark + IDS[1:2], IDS[2]))
    assert result.token_values[2, F] == pytest.approx(lost, abs=1e-9)
    assert result.generated_features[0].baseline == "_"


def entropy(score: torch.Tensor) -> torch.Tensor:
    return -(score.softmax(-1) * score.log_softmax(-1)).sum(-1)


def echo_explainer(**options: Any) -> ap.Explainer:
    return ap.Explainer(echo.echo_spec(), backend=EchoBackend(**options), plugins=[echo])


@pytest.mark.parametrize("joint", [True, False])
def test_models_that_read_the_target_apart_get_what_is_left_of_it(joint: bool) -> None:
    """In the rule of this backend, reading apart and reading on are the same, so the values are, too."""
    with echo_explainer(joint=joint) as explainer:
        result, entropies = attribute(explainer), attribute(explainer, target_fn="entropy")
    score: Score = lambda before, token: echo_logits(before, (token,))[0].log_softmax(-1)[token]  # noqa: E731
    np.testing.assert_allclose(result.token_values, shapley(table(score)), atol=1e-9)
    distribution: Score = lambda before, token: entropy(echo_logits(before, (token,))[0])  # noqa: E731
    np.testing.assert_allclose(entropies.token_values, shapley(table(distribution)), atol=1e-9)


@pytest.mark.parametrize("name", ["kl_divergence", "logit", "top_p_size"])
def test_functions_of_logits_get_the_logits_of_whole_targets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few coalitions at a time: the values are the same, and no more logits are held than may be."""
    with echo_explainer() as explainer:
        at_once = attribute(explainer, target_fn=name)
    held: list[int] = []

    def watched(logits: torch.Tensor) -> torch.Tensor:
        held.append(len(logits))
        assert logits.shape[1:] == (T, tiny.VOCABULARY)
        return logits.logsumexp(-1)

    monkeypatch.setattr(readout, "LOGITS_BYTES", 3 * 4 * T * tiny.VOCABULARY)
    with echo_explainer() as explainer:
        few = attribute(explainer, target_fn=name)
        attribute(explainer, target_fn=watched)
    np.testing.assert_allclose(few.token_values, at_once.token_values, atol=1e-12)
    assert max(held[2:]) == 3, "two calls check that tokens do not depend on later ones"


def test_the_reference_without_features_lacks_the_target_too(explainer: ap.Explainer) -> None:
    for name in ("pcxmi", "kl_divergence"):
        result = attribute(explainer, target_fn=name, target_options={"reference": "empty"})
        assert result.base_value == pytest.approx(0, abs=1e-9)
        assert abs(result.full_value or 0) > 0.01


def test_what_target_and_contrast_begin_with_is_absent_from_both(explainer: ap.Explainer) -> None:
    contrast = " ac?"
    other = tuple(tiny.tokenizer()(contrast, add_special_tokens=False)["input_ids"])
    prompt, score = tuple(tiny.tokenizer()(PROMPT)["input_ids"]), model_score("llama")

    def difference(kept: tuple[bool, ...], t: int) -> float:
        ours = tuple(token for token, on in zip(IDS[:t], kept, strict=False) if on)
        theirs = tuple(token for i, token in enumerate(other[:t]) if token != IDS[i] or kept[i])
        return float(score(prompt + ours, IDS[t]) - score(prompt + theirs, other[t]))

    for name in ("contrast_log_prob_diff", "contrast_logits_diff"):
        result = attribute(explainer, "ablation", target_fn=name, contrast=contrast)
        assert (result.token_values[~result.possible] == 0).all()
        if name == "contrast_log_prob_diff":
            for j in range(T - 1):
                kept = tuple(i != j for i in range(T - 1))
                for t in range(j + 1, T):
                    lost = difference((True,) * 3, t) - difference(kept, t)
                    assert result.token_values[t, F + j] == pytest.approx(lost, abs=1e-9)


def test_alternative_baselines_are_averaged_and_lanes_give_the_same() -> None:
    prompt = ap.Template("{a} {b}", {"a": "one", "b": "two"}, baselines={"a": ["x", "yy"], "b": "z"})
    asked: dict[str, Any] = {"method": "shapley", "attribute_generated": True}
    with echo_explainer() as explainer:
        one = explainer.attribute(prompt, TARGET, **asked)
        other = explainer.attribute(prompt, TARGET, target_fn="entropy", **asked)
    with echo_explainer(lanes=3) as explainer:
        np.testing.assert_allclose(explainer.attribute(prompt, TARGET, **asked).token_values, one.token_values)
        lanes = explainer.attribute(prompt, TARGET, target_fn="entropy", **asked)
        np.testing.assert_allclose(lanes.token_values, other.token_values)
    assert one.efficiency_gap == pytest.approx(0, abs=1e-9)
    score: Score = lambda before, token: echo_logits(before, (token,))[0].log_softmax(-1)[token]  # noqa: E731
    empty = [tuple(tiny.tokenizer()(text)["input_ids"]) for text in ("x z", "yy z")]
    mean = sum(float(score(ids, token)) for ids in empty for token in IDS) / 2
    assert one.base_value == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(
    "prompt",
    [
        ap.Documents("Who?", {"a": "Ann is here. Bob is not.", "b": "Cy left."}, by="sentences"),
        ap.Text("Ann is here.\n\nBob is not. Cy left.", by="words"),
        ap.Text("Ann is", by="tokens", baseline=0),
    ],
)
def test_every_kind_of_prompt_has_levels_that_part_it_from_the_target(explainer: ap.Explainer, prompt: object) -> None:
    result = explainer.attribute(prompt, TARGET, method="hierarchical", scores="owen", attribute_generated=True)
    top = [row for row in result.extras["tree"] if row["depth"] == 1]
    assert [row["text"] for row in top] == ["prompt", "target"]
    assert top[1]["members"] == list(range(len(result.features)))[result.generated_part]
    assert result.efficiency_gap == pytest.approx(0, abs=1e-9)
    assert (result.token_values[~result.possible] == 0).all()


def test_what_is_shared_is_read_once() -> None:
    """A coalition with the whole target costs what it always did; one that lacks tokens reads no token twice."""
    with ap.Explainer((tiny.model(), tiny.tokenizer())) as explainer:
        plain = explainer.attribute(PROMPT, TARGET, method="shapley").provenance
        both = attribute(explainer).provenance
        prompts = {coalition(number)[0] for number in range(2**N)}
        sequences = set()
        for number in range(2**N):
            prompt, here = coalition(number)
            read = prompt + tuple(token for token, on in zip(IDS, here, strict=False) if on)
            sequences |= {read[:stop] for stop in range(1, len(read) + 1)}
    assert len(prompts) == plain.evaluations == 2**F and both.evaluations == 2**N
    # What is kept of one batch is the way to its last row only.
    assert len(sequences) <= both.forwarded_tokens <= 1.1 * len(sequences)
    assert len(sequences) < 0.15 * sum(len(coalition(number)[0]) + T for number in range(2**N))


def test_coalitions_with_the_whole_target_take_one_row() -> None:
    session: list[EchoSession] = []
    with echo_explainer() as explainer:
        session.append(explainer.session)  # type: ignore[arg-type]
        attribute(explainer, "ablation")
    rows = {row for batch in session[0].asked for row in batch}
    prompt = tuple(tiny.tokenizer()(PROMPT)["input_ids"])
    assert sum(row.target == IDS for row in rows) == 1 + F
    assert {row.target for row in rows if row.target != IDS} == {IDS[: j + 1] for j in range(3)} | {
        IDS[j + 1 :] for j in range(3)
    }
    assert all(row.prompt[: len(prompt)] == prompt for row in rows if row.target != IDS)


def test_the_model_may_write_the_target(explainer: ap.Explainer) -> None:
    result = explainer.attribute(PROMPT, method="ablation", generate={"max_new_tokens": 3}, attribute_generated=True)
    assert len(result.target_tokens) == 3 and len(result.generated_features) == 2
    # The budget suffices for the prompt, and not for the target that the model writes.
    with pytest.raises(ap.BudgetError, match="takes 6 evaluations"):
        explainer.attribute(
            PROMPT, method="ablation", generate={"max_new_tokens": 3}, attribute_generated=True, budget=5
        )


def test_auto_and_the_budget_count_all_features(explainer: ap.Explainer) -> None:
    assert attribute(explainer, "auto", budget=64).provenance.method == "shapley"
    assert attribute(explainer, "auto", budget=63).provenance.method == "gp_shap"
    with pytest.raises(ap.BudgetError, match="6 features takes 7"):
        attribute(explainer, "ablation", budget=6)


def test_a_target_of_one_token_has_no_features(explainer: ap.Explainer) -> None:
    result = explainer.attribute(PROMPT, "a", method="shapley", attribute_generated=True)
    plain = explainer.attribute(PROMPT, "a", method="shapley")
    assert result.features == plain.features and result.generated_features == ()
    np.testing.assert_array_equal(result.values, plain.values)


@pytest.mark.parametrize("target_fn", ["log_prob", "entropy"])
def test_the_estimate_is_what_the_run_takes(explainer: ap.Explainer, target_fn: str) -> None:
    cost = explainer.estimate(PROMPT, TARGET, method="shapley", attribute_generated=True, target_fn=target_fn)
    made = attribute(explainer, target_fn=target_fn).provenance
    assert (cost.features, cost.evaluations) == (N, made.evaluations)
    assert cost.forwarded_tokens == made.forwarded_tokens


def test_many_runs_share_batches_and_agree(explainer: ap.Explainer) -> None:
    prompts = [{"prompt": PROMPT, "target": TARGET}, {"prompt": "one four", "target": " xy", "target_fn": "entropy"}]
    shared = {"method": "shapley", "attribute_generated": True}
    for item, result in zip(prompts, explainer.attribute_many(prompts, **shared), strict=True):
        single = explainer.attribute(**item, **shared)
        np.testing.assert_allclose(result.token_values, single.token_values, atol=1e-9)


def test_scores_are_cached_token_by_token(tmp_path: Path) -> None:
    with ap.Explainer((tiny.model(), tiny.tokenizer()), cache=tmp_path / "c.sqlite3") as explainer:
        first = attribute(explainer)
        again = attribute(explainer)
        other = explainer.attribute(PROMPT, TARGET[:-1] + "?", method="shapley", attribute_generated=True)
    assert again.provenance.forwarded_tokens == again.provenance.evaluations == 0 < first.provenance.forwarded_tokens
    np.testing.assert_array_equal(first.token_values, again.token_values)
    fresh = ap.Explainer((tiny.model(), tiny.tokenizer())).attribute(
        PROMPT, TARGET[:-1] + "?", method="shapley", attribute_generated=True
    )
    np.testing.assert_allclose(other.token_values, fresh.token_values, atol=1e-9)


def test_two_inputs_differ_by_what_is_read_of_the_target() -> None:
    inputs = {ModelInput((1,)), ModelInput((1,), (), ((2,),)), ModelInput((1,), (), ((),))}
    assert len(inputs) == 3


def test_saved_results_are_refined_and_evaluated(explainer: ap.Explainer, tmp_path: Path) -> None:
    rough = attribute(explainer, "kernel_shap", budget=20)
    loaded = ap.Attribution.load(rough.save(tmp_path / "r.json"))
    assert loaded.features == rough.features and loaded.prompt_part == slice(0, F)
    better = explainer.refine(loaded, budget=40)
    direct = attribute(explainer, "kernel_shap", budget=40)
    np.testing.assert_allclose(better.token_values, direct.token_values, atol=1e-9)
    # Metrics remove tokens of the target like any other feature.
    drop = explainer.evaluate(attribute(explainer), ["top_k_drop"], options={"top_k_drop": {"k": N}})["top_k_drop"]
    values = table(model_score("llama"))
    assert drop.value == pytest.approx(float((values[-1] - values[0]).sum()), abs=1e-9)


def test_a_file_is_as_before_without_it_and_refused_if_its_tokens_are_wrong(
    explainer: ap.Explainer, tmp_path: Path
) -> None:
    plain = explainer.attribute(PROMPT, TARGET, method="shapley").to_dict()
    assert all("generated" not in feature for feature in plain["features"]), "older versions can read it"
    path = attribute(explainer).save(tmp_path / "r.json")
    data = json.loads(path.read_text())
    for wrong in (7, "0", None):
        data["features"][F]["generated"] = wrong
        path.write_text(json.dumps(data))
        with pytest.raises(ap.ResultError, match="not all but the last"):
            ap.Attribution.load(path)


def test_tables_say_which_features_are_tokens_of_the_target(explainer: ap.Explainer) -> None:
    result = attribute(explainer)
    frame = result.to_dataframe()
    assert frame["generated"].isna().tolist() == [True] * F + [False] * (T - 1)
    assert result.to_dataframe("tokens")["generated"].dropna().tolist() == [0, 1, 2] * T
    assert "generated" not in explainer.attribute(PROMPT, TARGET, method="shapley").to_dataframe().columns
    np.testing.assert_array_equal(result.values[result.generated_part], result.values[F:])
    assert ap.compare([result, attribute(explainer, "ablation")]).rank_correlation.shape == (2, 2)


def test_views_part_the_target_from_the_prompt_and_hatch_what_is_impossible(
    explainer: ap.Explainer, capsys: pytest.CaptureFixture[str]
) -> None:
    result = attribute(explainer)
    figure = result.plot("heatmap")
    (cells,) = (axes for axes in figure.axes if any(patch.get_hatch() for patch in axes.patches))
    assert len(cells.patches) == (~result.possible).sum()
    assert sum(bool(text.get_text()) for text in cells.texts) == result.possible.sum(), (
        "impossible cells have no number"
    )
    assert any(line.get_ydata()[0] == F - 0.5 for line in cells.lines)
    html = str(result.plot("html"))
    assert html.count('class="apn-none"') == (~result.possible).sum()
    assert html.count('class="apn-prompt"') == 2
    result.show()
    shown = capsys.readouterr().out.replace("[+]", "").replace("[−]", "")
    assert "→ ab!" in shown
    for view in ("bar", "terminal"):
        result.plot(view)


class InputTimesGradient:
    """Gradient × input of the prompt's tokens, and of those of the target that are read."""

    estimand = "gradient × input"
    requires = frozenset({ap.Capability.GRADIENTS})

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        inside = game.inside()
        points, following = inside.embeddings()[None], inside.following()[None]
        found = inside.gradients(points, following=following)
        assert found.prompt is not None and found.generated is not None
        values = torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64)
        for owners, slopes, at in (
            (inside.feature_of, found.prompt, points),
            (inside.generated_feature_of, found.generated, following),
        ):
            scores = (slopes[:, 0] * at[0]).sum(-1).double()
            for place, feature in enumerate(owners):
                if feature is not None:
                    values[feature] += scores[:, place]
        return ap.Estimate(values)


def test_white_box_methods_find_the_features_of_the_target(explainer: ap.Explainer) -> None:
    result = attribute(explainer, InputTimesGradient())  # type: ignore[arg-type]
    assert (result.token_values[~result.possible] == 0).all()
    assert (np.abs(result.token_values[result.possible]) > 0).all()


def test_mistakes_are_refused_before_the_model_runs() -> None:
    with echo_explainer() as explainer:
        with pytest.raises(ap.InputError, match="attribute_generated='yes' must be True or False"):
            explainer.attribute(PROMPT, TARGET, attribute_generated="yes")  # type: ignore[arg-type]
        with pytest.raises(ap.InputError, match="attribute_target.*Write attribute_generated=True"):
            explainer.attribute(PROMPT, TARGET, attribute_target=True)
        with pytest.raises(ap.CapabilityError, match="replaces tokens of the prompt"):
            attribute(explainer, "reagent")

        def centred(logits: torch.Tensor) -> torch.Tensor:
            tops = logits.amax(-1)
            return tops - tops.mean(1, keepdim=True)

        with pytest.raises(ap.InputError, match="'centred' lets the value of a token depend on tokens after it"):
            attribute(explainer, target_fn=centred)
        assert explainer.session.asked == []  # type: ignore[attr-defined]


def test_what_replaces_tokens_counts_towards_the_context_length(explainer: ap.Explainer) -> None:
    """It may be longer than they are."""
    prompt = ap.Text("a b", keep=["a"], baseline="x" * 200)
    with pytest.raises(ap.InputError, match="exceed the model's context length of 512"):
        explainer.attribute(prompt, " abcd", method="shapley", attribute_generated=True)

"""Values of texts: what a model writes after each prompt, here or behind a server, compared with a target."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.testing import tiny
from apportion.testing.server import CompletionsServer, Fault
from apportion_backends.torch.backend import TorchBackend
from apportion_plugins.targets.models_of_text import Judge
from commands import Run
from texts import NUMBER, PARIS, PROMPT, QUESTION, SAMPLED, asked, explain, here, knows, prompts_to, unsure

pytestmark = pytest.mark.usefixtures("without_keys")


# --- values ---------------------------------------------------------------------------------------------------------


def test_a_black_box_has_the_values_of_its_rule(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        before = len(chat.received)
        result = explainer.attribute(QUESTION, method="shapley", **PARIS)
    names = result.feature_names
    expected = {"capital": 0.5, "France": 0.5}
    np.testing.assert_allclose(result.values, [expected.get(name, 0.0) for name in names], atol=1e-12)
    # The target is the text after the full prompt, which is not asked for again.
    assert result.target_text == "It is Paris." and result.provenance.samples == 1
    assert result.provenance.evaluations == len(asked(chat, before)) == 2 ** len(names)
    assert result.std_error is None and not result.has_token_values
    assert (result.base_value, result.full_value, result.efficiency_gap) == (0.0, 1.0, 0.0)


def test_texts_are_those_of_the_model_here_behind_every_server(session: ap.Session) -> None:
    calls: list[dict[str, Any]] = [
        {"target_fn": "chrf"},
        {"target_fn": "chrf", "target": "one two", "generate": {"max_new_tokens": 7}},
        {"target_fn": "bleu", "samples": 2, "generate": {"do_sample": True, "temperature": 1.5, "max_new_tokens": 5}},
    ]
    with here() as local:
        # Servers count neither the most likely tokens nor all of them, unless told so.
        wanted = [
            local.attribute(
                PROMPT, method="ablation", **{**call, "generate": {**call.get("generate", {}), **_all_tokens(call)}}
            )
            for call in calls
        ]
    for engine in ("vllm", "openai", "text"):
        tokenizer = None if engine == "text" else tiny.tokenizer()
        server = CompletionsServer(session, session.tokenizer, engine=engine)
        with server, explain(server, tokenizer=tokenizer) as there:
            for call, right in zip(calls, wanted, strict=True):
                found = there.attribute(PROMPT, method="ablation", **call)
                if call.get("samples") and engine == "text":
                    continue  # its seeds are made from other ids
                assert found.target_text == right.target_text
                assert found.extras["texts"][0]["texts"] == right.extras["texts"][0]["texts"]
                np.testing.assert_allclose(found.values, right.values, atol=1e-9)


def _all_tokens(call: Mapping[str, Any]) -> dict[str, object]:
    return {"top_k": 0} if call.get("generate", {}).get("do_sample") else {}


def test_a_given_target_is_compared_with_texts_that_end_at_stop_texts(session: ap.Session) -> None:
    with here() as explainer:
        free = explainer.attribute(PROMPT, " x", method="ablation", target_fn="exact_match")
        text = free.extras["texts"][0]["texts"][0]
        stop = text[3]
        cut = explainer.attribute(
            PROMPT, text[: text.index(stop)], method="ablation", target_fn="exact_match", generate={"stop": stop}
        )
    assert cut.full_value == 1.0 and cut.provenance.generation == {"stop": [stop]}
    assert all(stop not in one for row in cut.extras["texts"] for one in row["texts"])


def test_a_function_of_ones_own(chat: CompletionsServer) -> None:
    def lengths(texts: list[str], target: str) -> list[int]:
        seen.append(texts)
        return [len(text) - len(target) for text in texts]

    seen: list[list[str]] = []
    value = ap.TextValue(lengths, unit="characters", label="length of the text")
    with explain(chat) as explainer:
        result = explainer.attribute(QUESTION, "It", method="ablation", target_fn=value)
        named = explainer.attribute(
            QUESTION, "It", method="ablation", target_fn="judge", target_options={"function": lengths}
        )
    assert (result.full_value, result.unit, result.provenance.target_label) == (
        10.0,
        "characters",
        "length of the text",
    )
    np.testing.assert_array_equal(result.values, named.values)
    # Each distinct text is judged once.
    assert seen == [["It is Paris."], ["I do not know."]] * 2


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        ('{"name": "f", "arguments": "{\\"a\\": 1.0}"}', 1.0),
        ('Sure: {"arguments": {"a": 1}, "name": "f"} as asked', 1.0),
        ('{"name": "f", "arguments": {"a": 2}}', 1 / 3),
        ('{"name": "f", "arguments": {"a": true}}', 1 / 3),
        ("f(a=1)", 0.0),
        ('See [1] and {this}: {"name": "f", "arguments": {"a": 1}}', 1.0),
        ('{"call": {"name": "f", "arguments": {"a": 1}}', 0.0),
        ("{'name': 'f', 'arguments': {}}", 0.0),
        ('[{"name": "f", "arguments": {"a": 1}}]', 0.0),
        ('<think>use {x</think> {"name": "f", "arguments": {"a": 1}}', 1.0),
        ('a [5" pipe] {"name": "f", "arguments": {"a": 1}}', 1.0),
        ('{"name": "f"', 0.0),
        ("[" * 100_000, 0.0),
    ],
)
def test_json_is_compared_by_content(texts: str, value: float) -> None:
    with (
        CompletionsServer(None, engine="chat", writes=lambda prompt, content: texts) as server,
        explain(server) as there,
    ):
        call = {"method": "ablation", "target_fn": "json_match"}
        target = '{"name": "f", "arguments": {"a": 1}}'
        partial = there.attribute("a b", target, **call, target_options={"partial": True})
        whole = there.attribute("a b", target, **call)
        name = there.attribute("a b", target, **call, target_options={"only": ["name"]})
    assert partial.full_value == pytest.approx(value)
    assert whole.full_value == float(value == 1.0)
    assert name.full_value == float(value > 0)


# --- samples --------------------------------------------------------------------------------------------------------


def test_greedy_texts_that_are_alike_are_asked_for_once(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        before = len(chat.received)
        result = explainer.attribute(QUESTION, method="ablation", samples=4, **PARIS)
    assert len(asked(chat, before)) == 8 + 3, "four texts after the full prompt, and one after each other"
    assert (result.provenance.samples, result.std_error) == (1, None)
    assert "4 after the full prompt were alike" in " ".join(result.provenance.notes)


def test_greedy_texts_that_differ_are_sampled() -> None:
    count = iter(range(1000))

    def fickle(prompt: str, content: Mapping[str, Any]) -> str:
        return "x" * (1 + next(count) % 3)

    call: dict[str, Any] = {
        "method": "ablation",
        "target_fn": ap.TextValue(lambda texts, target: list(map(len, texts))),
    }
    with CompletionsServer(None, engine="chat", writes=fickle) as server, explain(server, lanes=1) as explainer:
        before = len(server.received)
        result = explainer.attribute(QUESTION, "x", samples=3, **call)
        assert len(asked(server, before)) == 3 * 8 and result.provenance.samples == 3
        one = explainer.attribute(QUESTION, **call)
    # The three are 1, 2 and 3 in some order: each mean has a variance of 1/3, and each difference of two of them 2/3.
    assert result.std_error is not None
    np.testing.assert_allclose(result.std_error, np.sqrt(2 / 3), rtol=0.3)
    assert "writes other greedy texts from time to time" in " ".join(result.provenance.notes)
    # No text is compared with itself.
    assert "one after each prompt does not show how much they vary" in " ".join(one.provenance.notes)
    assert one.provenance.evaluations == 8 and len(asked(server, before)) == 3 * 8 + 9


@pytest.mark.parametrize(("method", "budget"), [("shapley", None), ("ablation", None), ("kernel_shap", 12)])
def test_standard_errors_hold_the_noise_of_samples(method: str, budget: int | None) -> None:
    truth = np.array([0.0, 2.0, 0.0, 0.0])
    call = {"method": method, "budget": budget, "samples": 4, **NUMBER, **SAMPLED}
    squares: list[float] = []
    with CompletionsServer(None, engine="chat", writes=unsure, slots=4) as server, explain(server) as explainer:
        for seed in range(40):
            result = explainer.attribute("a b c d", "yes", **call, seed=seed)
            assert result.std_error is not None and (result.std_error > 0).all()
            squares += (((result.values - truth) / result.std_error) ** 2).tolist()
    # Of 160 standardised errors, the mean square has a standard deviation of about 0.15 around 1.
    assert 0.7 < np.mean(squares) < 1.45, np.mean(squares)


def test_one_sample_does_not_show_its_noise() -> None:
    with CompletionsServer(None, engine="chat", writes=unsure) as server, explain(server) as explainer:
        result = explainer.attribute("a b", "yes", method="ablation", **NUMBER, **SAMPLED)
        other = explainer.attribute("a b", "yes", method="ablation", **NUMBER, **SAMPLED, seed=1)
        seeds = [content["seed"] for content in asked(server) if "seed" in content]
    assert "one after each prompt does not show how much they vary" in " ".join(result.provenance.notes)
    assert len(set(seeds)) == len(seeds) == 6, "each text has a seed of its own"
    assert result.provenance.generation == other.provenance.generation == SAMPLED["generate"]


def test_more_samples_shrink_the_errors_and_until_counts_them() -> None:
    call: dict[str, Any] = {**NUMBER, **SAMPLED}
    with CompletionsServer(None, engine="chat", writes=unsure) as server, explain(server) as explainer:
        few, many = (
            explainer.attribute("a b c", "yes", method="shapley", samples=samples, **call) for samples in (4, 64)
        )
        spent = explainer.attribute("a b c d e", "yes", method="kernel_shap", samples=4, until=0.01, budget=20, **call)
    assert few.std_error is not None and many.std_error is not None
    assert 2.5 < np.mean(few.std_error) / np.mean(many.std_error) < 6.5  # 4, but for the noise of few
    assert "the budget was spent before" in " ".join(spent.provenance.notes).lower()


@pytest.mark.parametrize(
    "method", ["ablation", "banzhaf", "gp_shap", "hierarchical", "interactions", "kernel_shap", "lime",
               "occlusion", "permutation", "shapley"]
)  # fmt: skip
def test_every_perturbation_method_takes_texts(method: str, tmp_path: Path) -> None:
    with CompletionsServer(None, engine="chat", writes=unsure) as server, explain(server) as explainer:
        call: dict[str, Any] = {"method": method, **NUMBER, "budget": 120}
        one = explainer.attribute("a b c d e", "yes", **call)
        result = explainer.attribute("a b c d e", "yes", **call, samples=3, **SAMPLED)
    assert result.values.shape == (5,) and result.token_values.shape == one.token_values.shape
    assert np.isnan(result.token_values).all()
    assert result.std_error is not None and (result.std_error[~np.isnan(result.std_error)] >= 0).all()
    # Nothing of the replicates is left where values of tokens are expected.
    assert not any(name.startswith("token_") for name in result.extras)
    assert all(row["token_values"] == [] for row in result.extras.get("tree", ()))
    if {"tree", "interactions"} & set(result.extras):
        assert "the noise of texts is in the errors of single features" in " ".join(result.provenance.notes).lower()
    again = ap.Attribution.load(result.save(tmp_path / "result.json"))
    np.testing.assert_array_equal(again.values, result.values)
    for view in ("html", "terminal", "bar", "heatmap"):
        result.plot(view)
    if method == "hierarchical":
        with pytest.raises(ap.InputError, match="no values of target tokens"):
            result.plot("tree", token=0)


def test_samples_that_are_alike_are_counted() -> None:
    def sure(prompt: str, content: Mapping[str, Any]) -> str:
        return unsure(prompt, content) if "b" in prompt.split() else "0.5"

    call: dict[str, Any] = {"method": "shapley", **NUMBER, **SAMPLED, "samples": 3}
    with CompletionsServer(None, engine="chat", writes=sure) as server, explain(server) as explainer:
        notes = " ".join(explainer.attribute("a b c", "x", **call).provenance.notes)
    assert "The 3 texts after 4 of 8 prompts had the same value, so that no noise was seen there" in notes


def test_a_method_for_log_probabilities_is_refused(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        before = len(chat.received)
        with pytest.raises(ap.CapabilityError, match="'context_cite' needs log_probs"):
            explainer.attribute(QUESTION, "x", method="context_cite", target_fn="chrf")
        assert len(chat.received) == before


# --- kept texts -----------------------------------------------------------------------------------------------------


def test_rescoring_asks_for_nothing(chat: CompletionsServer, tmp_path: Path) -> None:
    with explain(chat) as explainer:
        result = explainer.attribute(QUESTION, method="shapley", **PARIS)
        before = len(chat.received)
        other = explainer.rescore(result, "chrf", target="I do not know.")
        assert len(chat.received) == before
        fresh = explainer.attribute(QUESTION, "I do not know.", method="shapley", target_fn="chrf")
    np.testing.assert_array_equal(other.values, fresh.values)
    assert (other.provenance.evaluations, other.provenance.cached) == (0, 128)
    assert other.provenance.target_fn == "chrf" and other.target_text == "I do not know."
    path = result.save(tmp_path / "result.json")
    with explain(chat) as explainer:
        before = len(chat.received)
        loaded = explainer.rescore(ap.Attribution.load(path), "chrf", target="I do not know.")
        assert len(asked(chat, before)) == 0
        again = explainer.rescore(
            ap.Attribution.load(loaded.save(tmp_path / "again.json")), "regex", target_options={"pattern": "Paris"}
        )
        assert len(asked(chat, before)) == 0
    np.testing.assert_array_equal(loaded.values, fresh.values)
    np.testing.assert_array_equal(again.values, result.values)


def test_rescoring_keeps_the_scores_of_steps(tmp_path: Path) -> None:
    with here() as explainer:
        result = explainer.attribute("one two", " x", method="ablation", target_fn="chrf", step_scores=["prob"])
        same = explainer.rescore(result, "exact_match")
        other = explainer.rescore(result, "exact_match", target=" y")
        loaded = explainer.rescore(ap.Attribution.load(result.save(tmp_path / "result.json")), "exact_match")
    np.testing.assert_array_equal(same.step_scores["prob"], result.step_scores["prob"])
    np.testing.assert_array_equal(loaded.step_scores["prob"], result.step_scores["prob"])
    assert other.step_scores == {} and other.recipe is not None


def test_rescoring_refuses_what_has_no_texts() -> None:
    with here() as explainer:
        plain = explainer.attribute("one two", " x", method="ablation")
        texts = explainer.attribute("one two", " x", method="ablation", target_fn="chrf")
        with pytest.raises(ap.InputError, match="'log_prob' reads no texts"):
            explainer.rescore(plain, "chrf")
        with pytest.raises(ap.InputError, match="'prob' reads no texts"):
            explainer.rescore(texts, "prob")


def test_results_list_their_texts(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        result = explainer.attribute("capital of France", method="ablation", **PARIS)
        plain = explainer.attribute(ap.Text("capital of France", keep=["of"]), "x", method="ablation", target_fn="chrf")
    table = result.to_dataframe("texts")
    assert list(table["absent"]) == [[], ["capital"], ["of"], ["France"]] or len(table) == 4
    assert table["text"][0] == "It is Paris." and table["value"][0] == 1.0
    assert len(plain.to_dataframe("texts")) == 3
    with pytest.raises(ap.ResultError, match="only the whole target was scored"):
        result.to_dataframe("tokens")


def test_texts_are_kept_with_their_prompts(chat: CompletionsServer, tmp_path: Path) -> None:
    path = tmp_path / "texts.sqlite3"
    with explain(chat, cache=path) as explainer:
        explainer.attribute(QUESTION, method="ablation", **PARIS)
    with explain(chat, cache=path) as explainer:
        before = len(chat.received)
        result = explainer.attribute(QUESTION, "It is Paris.", method="ablation", target_fn="chrf")
        assert len(chat.received) == before
        assert (result.provenance.evaluations, result.provenance.cached) == (0, 8)
        explainer.attribute(QUESTION, "x", method="ablation", target_fn="chrf", generate={"max_new_tokens": 9})
        assert len(asked(chat, before)) == 8, "Texts of other options are other texts."
        explainer.attribute(QUESTION, "x", method="ablation", target_fn="chrf", **SAMPLED)
        explainer.attribute(QUESTION, "x", method="ablation", target_fn="chrf", **SAMPLED)
        assert len(asked(chat, before)) == 16, "Texts of one seed are drawn once."
        explainer.attribute(QUESTION, "x", method="ablation", target_fn="chrf", **SAMPLED, seed=1)
        assert len(asked(chat, before)) == 24


def test_texts_of_another_model_of_the_same_name_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "texts.sqlite3"
    for writes in (knows, lambda prompt, content: f"Other: {len(prompt)}"):
        with CompletionsServer(None, engine="chat", writes=writes) as server, explain(server, cache=path) as explainer:
            before = len(server.received)
            explainer.attribute(QUESTION, "x", method="ablation", target_fn="chrf")
            assert len(asked(server, before)) == 8


def test_a_run_that_dies_goes_on(chat: CompletionsServer, tmp_path: Path) -> None:
    with explain(chat, cache=tmp_path / "texts.sqlite3", lanes=1) as explainer:
        before = len(chat.received)
        chat.fail(Fault(500, "broken"), -1)
        with pytest.raises(ap.ServerError, match=r"does not answer: 500: .*0 prompts scored"):
            explainer.attribute(QUESTION, "x", method="ablation", target_fn="chrf")
        chat.recover()
        limited = explain(chat, cache=tmp_path / "texts.sqlite3", lanes=1, max_requests=2 + 5)
        before = len(chat.received)
        with (
            limited,
            pytest.raises(
                ap.ServerError, match=r"limit of 7 requests is reached .*prompts? scored and kept in the cache"
            ),
        ):
            limited.attribute(QUESTION, "x", method="ablation", target_fn="chrf")
        explainer.attribute(QUESTION, "x", method="ablation", target_fn="chrf")
    prompts = prompts_to(chat, before)
    assert len(prompts) == len(set(prompts)) == 8


def test_refining_and_evaluating_write_no_text_twice(chat: CompletionsServer, tmp_path: Path) -> None:
    with explain(chat) as explainer:
        before = len(chat.received)
        first = explainer.attribute(QUESTION, "It is Paris.", method="kernel_shap", target_fn="chrf", budget=20)
        second = explainer.refine(first, budget=40)
        explainer.evaluate(second, ["lds"], random_orders=0)
        prompts = prompts_to(chat, before)
        assert len(prompts) == len(set(prompts))
        assert second.provenance.evaluations == 40
        before = len(chat.received)
        loaded = ap.Attribution.load(second.save(tmp_path / "result.json"))
        explainer.evaluate(loaded, ["lds"], random_orders=0)
    assert not set(prompts_to(chat, before)) & set(prompts[:40]), "The result holds the texts of its own prompts."


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"samples": 4}, "the number of texts"),
        ({"generate": {"do_sample": True, "max_new_tokens": 7}}, "the options of their texts"),
        ({"seed": 1}, "the seed of their texts"),
    ],
)
def test_results_of_other_texts_are_not_evaluated_together(other: dict[str, Any], what: str) -> None:
    call: dict[str, Any] = {"method": "ablation", **NUMBER, **SAMPLED, "samples": 2}
    with CompletionsServer(None, engine="chat", writes=unsure) as server, explain(server) as explainer:
        pair = [explainer.attribute("a b c", "x", **{**call, **more}) for more in ({}, other)]
        with pytest.raises(ap.InputError, match=f"differ in {what}"):
            explainer.evaluate(pair, ["lds"])
        same = [explainer.attribute("a b c", "x", **{**call, "method": method}) for method in ("ablation", "shapley")]
        before = len(server.received)
        explainer.evaluate(same, ["lds"], random_orders=0)
        assert not asked(server, before), "Their texts are shared."


def test_a_run_goes_on_after_an_evaluation_beside_others(chat: CompletionsServer) -> None:
    with explain(chat) as explainer:
        first = explainer.attribute(QUESTION, "x", method="shapley", target_fn="chrf")
        rough = explainer.attribute(QUESTION, "x", method="kernel_shap", target_fn="chrf", budget=20)
        explainer.evaluate([first, rough], ["lds"], random_orders=0)
        before = len(chat.received)
        better = explainer.refine(rough, budget=32)
        assert not asked(chat, before)
        fresh = explainer.attribute(QUESTION, "x", method="kernel_shap", target_fn="chrf", budget=32)
    np.testing.assert_array_equal(better.values, fresh.values)


def test_texts_belong_to_the_settings_and_the_tokenizer_that_wrote_them(tmp_path: Path) -> None:
    call: dict[str, Any] = {"method": "ablation", "target_fn": "chrf", "generate": {"max_new_tokens": 6}}
    model, tokenizer, path = copy.deepcopy(tiny.model()), copy.deepcopy(tiny.tokenizer()), tmp_path / "c.sqlite3"

    def run() -> ap.Attribution:
        with ap.Explainer((model, tokenizer), cache=path, progress=False) as explainer:
            return explainer.attribute(PROMPT, "x", **call)

    before, again = run(), run()
    assert (again.provenance.evaluations, again.provenance.cached) == (0, 6)
    token = tokenizer(before.extras["texts"][0]["texts"][0], add_special_tokens=False)["input_ids"][1]
    model.generation_config.suppress_tokens = [token]
    after = run()
    assert (after.provenance.evaluations, after.provenance.cached) == (6, 0)
    assert after.extras["texts"][0]["texts"] != before.extras["texts"][0]["texts"]
    with ap.Explainer((model, tokenizer), progress=False) as explainer:
        loaded = ap.Attribution.load(before.save(tmp_path / "before.json"))
        with pytest.raises(ap.InputError, match="made with another model"):
            explainer.rescore(loaded, "exact_match")
        live = explainer.attribute(PROMPT, "x", **call)
        model.generation_config.suppress_tokens = None
        with pytest.raises(ap.InputError, match="The model has changed"):
            explainer.evaluate(live, ["lds"])


def test_texts_of_a_file_are_not_lent_to_other_weights_behind_a_server(session: ap.Session, tmp_path: Path) -> None:
    model = copy.deepcopy(tiny.model())
    with torch.no_grad():
        for part in model.parameters():
            part.copy_(part.flip(0))
    spec = ap.ModelSpec("other", tiny.tokenizer(), objects=model)
    other = TorchBackend().load(spec, device=None, dtype=None, memory_budget=None)
    path = tmp_path / "result.json"
    call: dict[str, Any] = {"method": "kernel_shap", "target_fn": "chrf", "budget": 12}
    with (
        CompletionsServer(session, session.tokenizer) as server,
        explain(server, tokenizer=tiny.tokenizer()) as explainer,
    ):
        explainer.attribute(PROMPT, "x", **call).save(path)
        before = len(server.received)
        explainer.rescore(ap.Attribution.load(path), "exact_match")
        explainer.refine(ap.Attribution.load(path), budget=14)
        assert len(asked(server, before)) == 2
    with CompletionsServer(other, other.tokenizer) as server, explain(server, tokenizer=tiny.tokenizer()) as explainer:
        for use in (lambda one: explainer.refine(one, budget=20), lambda one: explainer.rescore(one, "exact_match")):
            with pytest.raises(ap.InputError, match="other weights"):
                use(ap.Attribution.load(path))
    other.close()


def test_functions_that_no_file_holds_are_replaced(chat: CompletionsServer, tmp_path: Path) -> None:
    with explain(chat) as explainer:
        result = explainer.attribute(
            QUESTION, "x", method="ablation", target_fn=ap.TextValue(lambda texts, _: [1.0] * len(texts))
        )
        loaded = ap.Attribution.load(result.save(tmp_path / "result.json"))
        assert explainer.rescore(loaded, "regex", target_options={"pattern": "Paris"}).full_value == 1.0
        for target in (None, "{'a': 1}", '{"a": {"b": 1}'):
            with pytest.raises(ap.InputError, match="no JSON object"):
                explainer.rescore(result, "json_match", target=target)


# --- refusals -------------------------------------------------------------------------------------------------------


def _nan(texts: list[str], target: str) -> list[float]:
    return [float("nan")] * len(texts)


def _broken(texts: list[str], target: str) -> list[float]:
    raise KeyError("key")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"samples": 2}, ap.InputError, "samples=2 is a number of texts .*'log_prob' reads none.*budget="),
        ({"target_fn": "chrf", "samples": 0}, ap.InputError, "samples"),
        ({"target_fn": "chrf", "samples": 1.5}, ap.InputError, "samples"),
        ({"target_fn": "chrf", "attribute_generated": True}, ap.InputError, "whole texts only"),
        ({"target_fn": "chrf", "contrast": " y"}, ap.InputError, "not contrastive"),
        ({"target_fn": "chrf", "method": "saliency"}, ap.CapabilityError, "'saliency' needs gradients.*only the texts"),
        ({"target_fn": "chrf", "step_scores": ["bleu"]}, ap.InputError, "step score 'bleu' reads whole texts"),
        ({"step_scores": ["chrf"]}, ap.InputError, "step score 'chrf' reads whole texts"),
        ({"target_fn": Judge()}, ap.InputError, "'Judge' needs a function of texts"),
        ({"target_fn": "judge", "target_options": {"function": "broken_judge:x"}}, ap.InputError, "SyntaxError"),
        ({"target_fn": "judge"}, ap.InputError, "'judge' needs a function of texts"),
        ({"target_fn": "embedding_similarity"}, ap.InputError, "'embedding_similarity' needs an encoder"),
        (
            {"target_fn": "judge", "target_options": {"function": "json:nothing"}},
            ap.InputError,
            "not the place of a function",
        ),
        ({"target_fn": "judge", "target_options": {"function": 3}}, ap.InputError, "must be a function"),
        ({"target_fn": "regex", "target": "  "}, ap.InputError, "white space, which is nothing to look for"),
        ({"target_fn": "regex", "target_options": {"pattern": "("}}, ap.InputError, "is not a regular expression"),
        ({"target_fn": "json_match"}, ap.InputError, "The target contains no JSON object or list"),
        (
            {"target_fn": "json_match", "target": "{}", "target_options": {"only": ["a"]}},
            ap.InputError,
            "none of the keys",
        ),
        ({"target_fn": "json_match", "target_options": {"only": "a"}}, ap.InputError, "must be a list of keys"),
        ({"target_fn": "chrf", "generate": {"max_new_tokens": 0}}, ap.InputError, "max_new_tokens"),
        ({"target_fn": "chrf", "target": ""}, ap.InputError, "empty string"),
        ({"target_fn": "chrf", "generate": {"max_new_token": 3}}, ap.InputError, "max_new_token"),
    ],
)
def test_mistakes_are_refused_before_the_model_writes(
    call: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_judge.py").write_text("def x(:\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with here() as explainer:
        if "max_new_token" not in call.get("generate", {}):
            monkeypatch.setattr(type(explainer.session), "generate", _never)
        with pytest.raises(error, match=message):
            explainer.attribute("one two", **{"target": " x", "method": "ablation", **call})
    assert sys.path == before


def _never(*_: object, **__: object) -> Any:
    raise AssertionError("The model was asked.")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (_nan, ap.ScoreError, "The value of a text is not finite: .*gave nan for "),
        (_broken, ap.InputError, "'_broken' given as target_fn failed on .*KeyError"),
        (lambda texts, target: [1.0, 2.0], ap.InputError, "must return a list of 1 number"),
        (lambda texts, target: None, ap.InputError, "must return a list of 1 number"),
        (lambda texts, target: ["a"] * len(texts), ap.InputError, "must return a list of 1 number"),
    ],
)
def test_failures_of_a_function_name_it(
    chat: CompletionsServer, function: Any, error: type[Exception], message: str
) -> None:
    with explain(chat) as explainer:
        before = len(chat.received)
        with pytest.raises(error, match=message):
            explainer.attribute(QUESTION, "x", method="ablation", target_fn=ap.TextValue(function))
    assert len(asked(chat, before)) == 1, "It is tried on one text before the model writes all the others."


def test_a_model_that_writes_nothing_has_no_target() -> None:
    with CompletionsServer(None, engine="chat", writes=lambda prompt, content: "") as server, explain(server) as there:
        with pytest.raises(ap.InputError, match="wrote nothing after the full prompt"):
            there.attribute("a b", method="ablation", target_fn="chrf")
        assert there.attribute("a b", "x", method="ablation", target_fn="exact_match").full_value == 0.0


# --- the command line -----------------------------------------------------------------------------------------------


def test_the_shell_explains_texts(chat: CompletionsServer, run: Run, tmp_path: Path) -> None:
    saved, model = tmp_path / "result.json", ["--model", chat.address]
    options = [*model, "--target-fn", "regex", "--target-option", "pattern=Paris", "--method", "ablation"]
    found = run("attribute", QUESTION, *options, "--samples", "3", "--save", saved, "--json").json()
    assert found["full_value"] == 1.0 and found["provenance"]["samples"] == 1
    ended = run("attribute", QUESTION, *options, "--target", "x", "--max-new-tokens", "7")
    assert ended.code == 0 and asked(chat)[-1]["max_tokens"] == 7
    refused = run("attribute", QUESTION, *model)
    assert refused.code != 0 and "scores no given tokens" in refused.err and "chrf" in refused.err
    wrong = run("attribute", QUESTION, *options[:2], "--target-fn", "chrf", "--samples", "0")
    assert wrong.code == 2
    costs = run("attribute", QUESTION, *options, "--target", "x", "--dry-run")
    assert "8 texts after 8 distinct prompts in 8 requests" in " ".join(costs.out.split())


def test_the_shell_finds_a_judge_in_the_working_directory(
    chat: CompletionsServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_judges.py").write_text("def length(texts, target):\n    return [len(text) for text in texts]\n")
    monkeypatch.chdir(tmp_path)
    options = ["--target-fn", "judge", "--target-option", "function=my_judges:length", "--method", "ablation"]
    found = run("attribute", QUESTION, "--model", chat.address, *options, "--json")
    assert found.code == 0, found.err
    assert found.json()["full_value"] == len("It is Paris.")


def test_the_shell_explains_the_texts_of_a_dataset(chat: CompletionsServer, run: Run, tmp_path: Path) -> None:
    data, out = tmp_path / "data.csv", tmp_path / "out"
    data.write_text("prompt,target\ncapital of France,It is Paris.\ncapital of Spain,It is Madrid.\n")
    command = ["run", data, "--out", out, "--model", chat.address, "--method", "ablation", "--max-new-tokens", "9"]
    before = len(chat.received)
    assert run(*command, "--target-fn", "exact_match").code == 0
    sent = asked(chat, before)
    # "capital of" is a part of both prompts.
    assert len(sent) == 7 and {content["max_tokens"] for content in sent} == {9}
    assert [one.full_value for _, one in ap.load_results(out)] == [1.0, 0.0]
    before = len(chat.received)
    assert run(*command, "--target-fn", "exact_match").code == 0
    assert not prompts_to(chat, before)
    evaluated = run(
        "evaluate", "capital of France", "--model", chat.address, "--target-fn", "exact_match", "--max-new-tokens", "9",
        "--method", "shapley", "--compare", "ablation", "--metric", "lds",
    )  # fmt: skip
    assert evaluated.code == 0, evaluated.err
    assert {content["max_tokens"] for content in asked(chat, before)} == {9}

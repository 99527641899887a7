"""Results that were read from a file: evaluated and refined as if they had just been made, or refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.prompts.common import CHATML
from apportion.results.run_folder import ResultsFolder
from apportion.testing import tiny

WORDS = "one two three four five six seven eight nine ten"
MESSAGES = [{"role": "system", "content": "Be brief. Be kind."}, {"role": "user", "content": "Name a city."}]
TOOLS = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
TOOL = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
PROMPTS: Mapping[str, object] = {
    "str": WORDS,
    "text": ap.Text("a b c d", by="tokens", baseline=65, keep=[0]),
    "template": ap.Template(
        "{name}, {age}, lives in {city}, {state}",
        {"name": "Dave", "age": 42, "city": "Rome", "state": "x"},
        {"name": ["Sarah", "Mary"], ("city", "state"): [("Oslo", "y"), ("Bonn", "z")]},
        groups=[("name", "age")],
        draws=3,
    ),
    "positional": ap.Template("{} is {}", ["Dave", "here"], ["Ann", "there"]),
    "chat": ap.Chat(MESSAGES, by="sentences", chat_template=TOOLS + CHATML, baseline="", tools=[TOOL]),
    "documents": ap.Documents("Where?", {"a": "He left. He did.", "b": "In Rome."}, by="sentences", keep=["b"]),
}


def explainer(**options: Any) -> ap.Explainer:
    return ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False, **options)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[ap.Attribution], ap.Attribution]:
    return lambda result: ap.Attribution.load(result.save(tmp_path / "result.json"))


@pytest.mark.parametrize("kind", PROMPTS)
def test_loaded_results_are_evaluated_from_the_cache(
    kind: str, tmp_path: Path, saved: Callable[[ap.Attribution], ap.Attribution]
) -> None:
    cache = tmp_path / "scores.sqlite3"
    with explainer(cache=cache) as first:
        made = first.attribute(PROMPTS[kind], " xy", budget=60, seed=2)
        there = first.evaluate(made, seed=1)
    loaded = saved(made)
    assert loaded.recipe == made.recipe
    with explainer(cache=cache) as second:
        here = second.evaluate(loaded, seed=1)
        assert second.target_of(loaded) == first.target_of(made)
    assert here.evaluations == 0
    assert {name: m.value for name, m in here.measurements.items()} == {
        name: m.value for name, m in there.measurements.items()
    }


def test_loaded_results_are_refined_from_the_cache(
    tmp_path: Path, saved: Callable[[ap.Attribution], ap.Attribution]
) -> None:
    cache = tmp_path / "scores.sqlite3"
    options: dict[str, Any] = {"method": "kernel_shap", "seed": 3, "sampler": "kernel"}
    with explainer(cache=cache) as first:
        loaded = saved(first.attribute(WORDS, [1, 2], budget=100, **options))
    with explainer(cache=cache) as second:
        more = second.refine(loaded, budget=200)
        at_once = second.attribute(WORDS, [1, 2], budget=200, **options)
        again = second.refine(saved(more), budget=300)
    assert (more.provenance.evaluations, more.provenance.cached) == (100, 100)
    assert (again.provenance.evaluations, again.provenance.cached) == (100, 200)
    np.testing.assert_array_equal(more.values, at_once.values)
    with explainer() as without:  # everything is scored again
        assert without.refine(loaded, budget=200).provenance.evaluations == 200
        assert without.evaluate(loaded, ["deletion"]).evaluations > 0


def test_auto_chooses_anew_and_generated_targets_stay(saved: Callable[[ap.Attribution], ap.Attribution]) -> None:
    with explainer() as first:
        made = first.attribute("a b c d e f", budget=20, generate={"max_new_tokens": 3}, target_fn="prob")
    with explainer() as second:
        exact = second.refine(saved(made), budget=64)
    assert (exact.provenance.method, exact.std_error) == ("shapley", None)
    assert (exact.target_text, exact.target_tokens) == (made.target_text, made.target_tokens)
    for name in ("generation", "target_fn", "unit"):
        assert getattr(exact.provenance, name) == getattr(made.provenance, name)


@pytest.mark.parametrize("target", [None, "Paris"])
def test_notes_are_the_same_as_in_memory(smollm2: ap.Explainer, tmp_path: Path, target: str | None) -> None:
    prompt = ap.Text("What is the capital of France? It is", by="words")
    made = smollm2.attribute(prompt, target, method="kernel_shap", budget=20)
    loaded = ap.Attribution.load(made.save(tmp_path / "r.json"))
    here, there = (smollm2.refine(one, budget=24).provenance.notes for one in (made, loaded))
    assert here == there
    expected = "Did you mean ' Paris'" if target else "The model has a chat template"
    assert any(note.startswith(expected) for note in there), there


def test_the_contrast_comes_along(saved: Callable[[ap.Attribution], ap.Attribution]) -> None:
    call = {"target": " x", "contrast": " yz", "target_fn": "contrast_log_prob_diff", "method": "permutation"}
    with explainer() as one:
        loaded = saved(one.attribute(WORDS, budget=40, **call))
        at_once = one.attribute(WORDS, budget=80, **call)
    with explainer() as other:
        np.testing.assert_allclose(other.refine(loaded, budget=80).values, at_once.values, atol=1e-12)


def test_copies_and_results_of_other_explainers_count_as_loaded() -> None:
    with explainer() as first, explainer() as second:
        made = first.attribute("a b c", " x")
        assert second.evaluate(made, ["deletion"]).evaluations > 0
        assert first.evaluate(copy.deepcopy(made), ["deletion"]).evaluations > 0
        assert first.evaluate(made, ["deletion"]).evaluations == 0


def test_results_of_a_run_folder(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    with explainer(cache=folder.evaluations) as first:
        made = first.attribute(WORDS, " x", method="kernel_shap", budget=40)
        folder.add({"id": "a", "row": 1, "hash": "", "status": "ok", "result": made.to_dict()})
    ((_, loaded),) = ap.load_results(tmp_path)
    with explainer(cache=folder.evaluations) as second:
        assert second.refine(loaded, budget=50).provenance.evaluations == 10


class Unnamed:
    """A method that no plugin registers."""

    estimand = "something"
    requires: frozenset[ap.Capability] = frozenset()

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        return ap.Estimate(game.values(torch.eye(game.n_features) > 0))


def halved(logits: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1)[..., 0] / 2


@pytest.mark.parametrize(
    ("call", "lacks"),
    [
        ({"prompt": ap.Text("a b", by=str.split)}, r"prompt \(Text\.by is a function\)"),
        ({"prompt": ap.Text("a b", keep=str.isupper)}, r"prompt \(Text\.keep is a function\)"),
        ({"prompt": ap.Template(lambda name: f"Hi {name}", {"name": "x"})}, r"prompt \(Template\.template is a func"),
        ({"prompt": "a b", "target_fn": halved}, r"target_fn \(an object of the class function, not a name\)"),
    ],
)
def test_what_a_file_cannot_hold_is_named(
    call: dict[str, Any], lacks: str, saved: Callable[[ap.Attribution], ap.Attribution]
) -> None:
    with explainer() as one, explainer() as other:
        made = one.attribute(target=" x", method="ablation", **call)
        loaded = saved(made)
        assert one.evaluate(made, ["deletion"]).measurements, "in memory everything is there"
        for use in (other.evaluate, lambda result: other.refine(result, budget=60)):
            with pytest.raises(ap.InputError, match=rf"The result lacks .*{lacks}.*Run attribute\(\) again"):
                use(loaded)


def test_a_method_that_is_an_object_is_evaluated_but_not_refined(
    saved: Callable[[ap.Attribution], ap.Attribution],
) -> None:
    with explainer() as one, explainer() as other:
        loaded = saved(one.attribute(WORDS, " x", method=Unnamed()))
        assert other.evaluate(loaded, ["deletion"]).method == "Unnamed"
        with pytest.raises(ap.InputError, match=r"method \(an object of the class Unnamed, not a name\)"):
            other.refine(loaded, budget=60)


def test_other_models_tokenizers_and_versions_are_refused(saved: Callable[[ap.Attribution], ap.Attribution]) -> None:
    with explainer() as one:
        loaded = saved(one.attribute("a b c", " x"))
    for opened, message in (
        ((tiny.model("gpt2"), tiny.tokenizer()), r"made with another model, .*fingerprint .*Open that model"),
        ((tiny.model(), tiny.tokenizer(adds_start=True)), "The prompt reads otherwise than when the result was made"),
    ):
        with ap.Explainer(opened, progress=False) as other, pytest.raises(ap.InputError, match=message):
            other.evaluate(loaded)
    older = replace(loaded.provenance, versions={**loaded.provenance.versions, "torch": "1.0"})
    with explainer() as one, pytest.raises(ap.InputError, match=r"made with torch 1\.0, and this is "):
        one.evaluate(replace(loaded, provenance=older))


class Elsewhere:
    """Scores batches in its own way."""

    @ap.hookimpl
    def apportion_score(self, session: ap.Session, batch: ap.ScoringBatch, read: Any) -> torch.Tensor:
        return read(session, batch) * 2


def test_results_that_another_plugin_scored_are_refused(saved: Callable[[ap.Attribution], ap.Attribution]) -> None:
    with explainer(plugins=[Elsewhere()]) as one, explainer() as other:
        loaded = saved(one.attribute("a b c", " x"))
        with pytest.raises(ap.InputError, match=r"Other plugins scored this result: .*Elsewhere.*; those .* are none"):
            other.evaluate(loaded)


def test_files_of_earlier_versions_load_but_hold_no_arguments(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    with explainer() as one:
        one.attribute("a b c", " x").save(path)
        old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("recipe", "top_agreement")}
        path.write_text(json.dumps({**old, "version": 1}))
        loaded = ap.Attribution.load(path)
        assert (loaded.recipe, len(loaded.values)) == (None, 3)
        for use in (one.evaluate, one.target_of, lambda result: one.refine(result, budget=9)):
            with pytest.raises(ap.InputError, match="saved by an earlier version, or made by hand"):
                use(loaded)


@pytest.mark.parametrize(
    "change",
    [
        {"target": {}}, {"target": None}, {"extra": 1}, {"digest": 3}, {"contrast": {"ids": []}}, {"missing": {"a": 1}},
        {"missing": []}, {"options": [1]}, {"target_options": 3}, {"notes": [1]},
        {"target": {"ids": {"tuple": []}, "tokens": {"tuple": []}, "text": ""}},
    ],
)  # fmt: skip
def test_damaged_recipes_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "r.json"
    with explainer() as one:
        one.attribute("a b c", " x").save(path)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "recipe": {**data["recipe"], **change}}))
    with pytest.raises(ap.ResultError, match="is damaged"):
        ap.Attribution.load(path)


def _at(data: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The data with a value changed at a path such as ``recipe.method``."""
    name, _, rest = path.partition(".")
    return {**data, name: _at(data[name], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("recipe.target_fn", "prob"), ("recipe.method", "banzhaf"), ("provenance.seed", 5), ("estimand", "Owen value"),
        ("target_text", " Rome"), ("std_error", [0.0, 0.0, 0.0]), ("full_value", -0.5), ("seal", ""), ("seal", None),
        ("provenance.unit", "probability"), ("recipe.options", {"dict": {"zz": 3}}),
    ],
)  # fmt: skip
def test_changed_files_are_shown_but_not_used(tmp_path: Path, place: str, value: object) -> None:
    path = tmp_path / "r.json"
    with explainer() as one:
        one.attribute("a b c", " x", method="kernel_shap").save(path)
        path.write_text(json.dumps(_at(json.loads(path.read_text()), place, value)))
        with pytest.warns(UserWarning, match="changed after it was saved. It can be shown"):
            loaded = ap.Attribution.load(path)
        assert "<table" in loaded.plot("html")
        for _ in range(2):
            for use in (one.evaluate, one.target_of, lambda result: one.refine(result, budget=9)):
                with pytest.raises(ap.InputError, match="changed after it was saved"):
                    use(loaded)
            with pytest.warns(UserWarning, match="changed"):  # saving it again does not make it whole
                loaded = ap.Attribution.load(loaded.save(path))


def test_another_layout_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with explainer() as one:
        made = one.attribute(PROMPTS["template"], " xy", budget=60)
        path.write_text(json.dumps(made.to_dict(), sort_keys=True, indent=4))
        loaded = ap.Attribution.load(path)
        assert not loaded.changed
        assert one.evaluate(loaded, ["deletion"]).evaluations >= 0


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("full_value", float("inf")), ("base_value", float("nan")), ("values", [None, 1.0, 2.0]),
        ("token_values", [[None, 1.0, 2.0]]), ("provenance.evaluations", "x"), ("provenance.model", 3),
        ("provenance.until", float("inf")), ("provenance.options", [1]), ("recipe.prompt", None),
        ("recipe.prompt", {"type": 3, "arguments": {"dict": {}}}), ("recipe.prompt", {"type": "text", "arguments": 3}),
        ("recipe.options", {"zz": 3}), ("std_error", [-1.0, 0.0, 0.0]), ("std_error", [1.0]),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, place: str, value: object) -> None:
    path = tmp_path / "r.json"
    with explainer() as one:
        one.attribute("a b c", " x").save(path)
    path.write_text(json.dumps(_at(json.loads(path.read_text()), place, value)))
    with pytest.raises(ap.ResultError, match="is damaged"):
        ap.Attribution.load(path)


def test_views_of_changed_extras_say_that_they_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with explainer() as one:
        one.attribute("a b c", " x", method="interactions").save(path)
    path.write_text(json.dumps(_at(json.loads(path.read_text()), "extras.interactions", "x")))
    with pytest.warns(UserWarning, match="changed"):
        loaded = ap.Attribution.load(path)
    for view in (lambda: loaded.plot("matrix"), lambda: loaded.to_dataframe("pairs")):
        with pytest.raises(ap.ResultError, match="is damaged: it was changed"):
            view()

"""``apportion run``: every row once, whatever ends the process, and nothing scored twice."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apportion as ap
from apportion import explainer as explainer_module
from apportion.cli import main
from apportion.cli.dataset import read_records
from apportion.cli.items import Columns, read_items
from apportion.cli.options.prompt import PromptOptions
from apportion.results.run_folder import ResultsFolder
from apportion.testing import tiny
from commands import Ended, Run
from forks import Forks

ROWS: list[dict[str, Any]] = [
    {"prompt": "Ann plays tea and", "target": " golf", "id": "ann"},
    {"prompt": "Bo plays cups and", "seed": 3},
    {"prompt": "-"},
    {"prompt": "Cy = tea", "target": " x"},
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object, model: Path = tiny_model_dir) -> Ended:
        capsys.readouterr()
        code = main(["run", *map(str, words), "--model", str(model)])
        captured = capsys.readouterr()
        return Ended(code, captured.out, " ".join(captured.err.split()))

    return call


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(explainer_module.Explainer, "__init__", refuse)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "data.jsonl", ROWS)


def lines(out: Path) -> list[dict[str, Any]]:
    text = (out / "results.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def numbers(out: Path) -> dict[str, list[list[float]]]:
    return {row_id: result.token_values.tolist() for row_id, result in ap.load_results(out)}


# --- what is written -------------------------------------------------------------------------------------------------


def test_every_row_gets_what_attribute_gives(run: Run, data: Path, out: Path, tiny_model_dir: Path) -> None:
    ended = run(data, "--out", out, "--target", " y", "--method", "kernel_shap", "--budget", 12, "--json")
    assert ended.code == 0
    found = dict(ap.load_results(out))
    assert list(found) == ["ann", "2", "3", "4"]
    with ap.Explainer(str(tiny_model_dir), progress=False) as explainer:
        for (row_id, result), row in zip(found.items(), ROWS, strict=True):
            call = {"method": "kernel_shap", "budget": 12, "seed": row.get("seed", 0)}
            alone = explainer.attribute(row["prompt"], row.get("target", " y"), **call)
            np.testing.assert_allclose(result.token_values, alone.token_values, atol=1e-5)
            assert result.provenance.evaluations == alone.provenance.evaluations
            assert result.provenance.seed == call["seed"], row_id
    summary = ended.json()
    assert summary["done"] == summary["rows"] == 4
    assert summary["evaluations"] == sum(result.provenance.evaluations for result in found.values())
    assert summary["forwarded_tokens"] == sum(result.provenance.forwarded_tokens for result in found.values())
    assert summary["out"] == str(out)


def test_a_second_run_does_nothing(run: Run, data: Path, out: Path, request: pytest.FixtureRequest) -> None:
    first = run(data, "--out", out, "--target", " y")
    assert "done" in first.out
    before = (out / "results.jsonl").read_bytes()
    request.getfixturevalue("no_model")
    again = run(data, "--out", out, "--target", " y", "--json", "--at-once", 2).json()
    assert (again["done"], again["done_before"], again["evaluations"]) == (0, 4, 0)
    assert (out / "results.jsonl").read_bytes() == before


def test_csv_parquet_and_json_lines_give_the_same(run: Run, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"id": i, "prompt": p, "seed": i} for i, p in ((7, "a b\nc"), (8, 'd, "e" f'))]
    jsonl(tmp_path / "d.jsonl", rows)
    with (tmp_path / "d.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["id", "prompt", "seed"])
        writer.writeheader()
        writer.writerows(rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    kinds = ("jsonl", "csv", "parquet")
    for kind in kinds:
        assert run(tmp_path / f"d.{kind}", "--out", tmp_path / kind, "--target", " y").code == 0
    first, *others = (numbers(tmp_path / kind) for kind in kinds)
    assert list(first) == ["7", "8"]
    assert others == [first, first]
    # They are the same rows, so that one kind of file goes on from another.
    (tmp_path / "csv" / "results.jsonl").write_text(
        (tmp_path / "csv" / "results.jsonl").read_text().partition("\n")[0] + "\n"
    )
    went_on = run(tmp_path / "d.jsonl", "--out", tmp_path / "csv", "--target", " y", "--json").json()
    assert (went_on["done"], went_on["done_before"], went_on["cached"]) == (1, 1, 8)


def test_a_template_takes_its_slots_from_columns(run: Run, tmp_path: Path, out: Path) -> None:
    data = tmp_path / "people.csv"
    data.write_text("name,city,age,other,target\nDave,Palm Coast,42,?, golf\nAnn,Rome,7,?,\n")
    words = ["--template", "{name} ({age}), {job} in {city}", "--value", "job=lawyer", "--baseline", "city=Paris"]
    ended = run(data, "--out", out, *words, "--target", " x", "--method", "ablation")
    assert ended.code == 0, ended.err
    assert "unused columns: other" in ended.err
    first, second = (result for _, result in ap.load_results(out))
    assert first.feature_names == second.feature_names == ("name", "age", "job", "city")
    assert [feature.text for feature in second.features] == ["Ann", "7", "lawyer", "Rome"]
    assert [feature.baseline for feature in second.features] == ["", "", "", "Paris"]
    assert (first.target_text, second.target_text) == (" golf", " x")


def test_chats_and_documents(run: Run, tmp_path: Path, out: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("Dave plays golf.")
    words = ["--document", note, "--target", " x", "--method", "ablation"]
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "Where is Dave?"}, {"prompt": "Who is Dave?"}])
    assert run(data, "--out", out, *words).code == 0
    assert [result.feature_names for _, result in ap.load_results(out)] == [("note.txt",)] * 2
    note.write_text("Dave plays chess.")
    assert "--document was" in run(data, "--out", out, *words).err
    chat = jsonl(tmp_path / "c.jsonl", [{"prompt": [{"role": "user", "content": "a. b"}]}])
    ended = run(chat, "--out", tmp_path / "chat", "--target", " x", "--features", "words")
    # The tiny tokenizer has no chat template, which is what the row says.
    assert "chat template" in ended.err
    assert ended.code == 1


# --- what was written, again ------------------------------------------------------------------------------------------


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Any other command."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> Ended:
        capsys.readouterr()
        code = main([*map(str, words)])
        captured = capsys.readouterr()
        return Ended(code, captured.out, " ".join(captured.err.replace("│", " ").split()))

    return call


def test_show_lists_the_rows_of_a_folder(run: Run, command: Run, data: Path, out: Path, tmp_path: Path) -> None:
    more = jsonl(tmp_path / "more.jsonl", [*ROWS, {"prompt": "x" * 600}])
    assert run(more, "--out", out, "--target", " y", "--method", "ablation").code == 1
    shown = command("show", out)
    assert shown.code == 0
    assert re.search(r"rows +4 done, 1 failed\n", shown.out)
    assert re.search(r"1 +ann +' golf' +[-−]\d+\.\d+ +\w+ [+−-]\d", shown.out)
    assert re.search(r"5 +5 +failed +.*512", shown.out)
    told = command("show", out / "results.jsonl", "--json").json()
    results = dict(ap.load_results(out))
    assert (told["rows"], told["done"], told["failed"], told["left"]) == (5, 4, 1, 0)
    assert told["evaluations"] == sum(result.provenance.evaluations for result in results.values())
    first, values = told["items"][0], results["ann"].values
    assert first["score"] == results["ann"].full_value
    top = results["ann"].feature_names[int(abs(values).argmax())]
    assert first["top"][0] == [top, results["ann"][top]]


def test_show_shows_one_row(run: Run, command: Run, data: Path, out: Path, tmp_path: Path) -> None:
    jsonl(data, [*ROWS, {"prompt": "x" * 600, "id": 1}])
    run(data, "--out", out, "--target", " y", "--method", "ablation")
    result = dict(ap.load_results(out))["2"]
    for words in (["--row", "2"], ["--item", "2"]):
        assert command("show", out, *words, "--json").out == f"{result.to_json()}\n"
    assert command("show", out, "--row", 2, "--plot", tmp_path / "row.png").code == 0
    assert "Row 1 of" in command("show", out, "--row", 1).err, "an id comes before a number"
    saved = result.save(tmp_path / "r.json")
    for words, message in (
        ([out, "--row", "an"], "has no row 'an' that has ended. Did you mean 'ann'? Its rows: "),
        ([out, "--view", "html"], "holds a result for each row; name the one to draw, such as --row 1"),
        ([saved, "--row", 1], "is one result; --row is for folders"),
        ([tmp_path], "has no results of `apportion run`: there is no results.jsonl in it"),
    ):
        ended = command("show", *words)
        assert ended.code in (1, 2)
        assert message in ended.err


def test_show_reads_a_folder_in_use_and_changes_nothing(run: Run, command: Run, data: Path, out: Path) -> None:
    run(data, "--out", out, "--target", " y", "--method", "ablation")
    file = out / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    before = file.read_bytes()
    with ResultsFolder(out).locked():
        told = command("show", out, "--json").json()
    assert (told["done"], told["left"]) == (3, 1)
    assert file.read_bytes() == before


def test_evaluate_judges_saved_results_with_the_scores_of_their_run(
    run: Run, command: Run, data: Path, out: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    run(data, "--out", out, "--target", " y", "--method", "shapley")
    asked = ["evaluate", "--result", out, "--row", "ann", "--model", tiny_model_dir]
    found = command(*asked, "--metric", "deletion", "--json").json()
    assert (found["evaluations"], found["method"]) == (0, "shapley")
    saved = dict(ap.load_results(out))["ann"].save(tmp_path / "r.json")
    alone = command("evaluate", "--result", saved, "--model", tiny_model_dir, "--metric", "deletion", "--json").json()
    assert alone["evaluations"] > 0
    assert alone["measurements"]["deletion"]["value"] == pytest.approx(found["measurements"]["deletion"]["value"])
    other = tmp_path / "other"
    tiny.model("gpt2").save_pretrained(other)
    tiny.tokenizer().save_pretrained(other)
    for words, message in (
        (["--model", other], "The result was made with another model"),
        (["--target", " z"], "options of the target cannot be given too"),
        (["--budget", 9], "options of the method cannot be given too"),
        (["a b"], "PROMPT and its options cannot be given too"),
        (["--compare", "lime"], "--compare cannot be given too"),
    ):
        assert message in command(*asked, *words).err
    assert "name the folder with --result" in command("evaluate", "a b", "--row", 1).err


# --- what it would cost -----------------------------------------------------------------------------------------------


def test_a_dry_run_of_few_rows_estimates_all_of_them(
    run: Run, data: Path, out: Path, tiny_model_dir: Path, request: pytest.FixtureRequest
) -> None:
    words = [data, "--out", out, "--target", " y", "--method", "kernel_shap", "--budget", 12]
    told = run(*words, "--dry-run", "--json").json()
    assert not out.exists()
    with ap.Explainer(str(tiny_model_dir), progress=False) as explainer:
        calls = [{"target": " y", "method": "kernel_shap", "budget": 12} | row for row in ROWS]
        costs = [explainer.estimate(**{k: v for k, v in call.items() if k != "id"}) for call in calls]
    assert (told["rows"], told["estimated"], told["failing"]) == (4, 4, {})
    for name in ("evaluations", "forwarded_tokens"):
        total = sum(getattr(cost, name) for cost in costs)
        assert told[name] == {"expected": total, "least": total, "most": total}
    shown = run(*words, "--dry-run")
    assert (shown.code, "4 to attribute" in shown.out, "estimated" in shown.out) == (0, True, False)
    done = run(*words, "--json").json()
    assert done["evaluations"] == told["evaluations"]["expected"]
    request.getfixturevalue("no_model")
    assert "none left to attribute" in run(*words, "--dry-run").out
    assert "was started with other arguments" in run(*words, "--seed", 1, "--dry-run").err


def test_a_run_has_the_tokens_of_targets_as_features_and_older_folders_are_resumed(
    run: Run, data: Path, out: Path
) -> None:
    words = [data, "--out", out, "--target", " xy", "--method", "ablation"]
    assert run(*words).code == 0
    manifest = json.loads((out / "run.json").read_text())
    del manifest["arguments"]["attribute_generated"]
    (out / "run.json").write_text(json.dumps(manifest))
    assert run(*words).code == 0, "a folder that is older than the flag"
    assert "--attribute-generated was false and is now true" in run(*words, "--attribute-generated").err
    assert run(*words, "--attribute-generated", "--restart").code == 0
    assert all(line["result"]["features"][-1]["generated"] is not None for line in lines(out))


def test_a_dry_run_of_many_rows_estimates_some_and_states_the_range(run: Run, tmp_path: Path, out: Path) -> None:
    data = jsonl(
        tmp_path / "d.jsonl", [{"prompt": " ".join(f"{n}a{i}" for i in range(n))} for n in (9, *range(3, 33), 600)]
    )
    words = [data, "--out", out, "--target", " y", "--method", "ablation"]
    told = run(*words, "--dry-run", "--json", "--progress", "always")
    assert told.err.count("estimating: row ") == told.json()["estimated"] == 8
    assert "context length" in told.json()["failing"]["32"]
    evaluations = told.json()["evaluations"]
    done = run(*words, "--json").json()
    assert evaluations["least"] <= done["evaluations"] <= evaluations["most"]
    assert evaluations["least"] < evaluations["expected"] < evaluations["most"]
    shown = run(*words, "--dry-run", "--restart").out
    assert "32 to attribute, of which 8, from the shortest to the longest, were estimated" in shown
    assert re.search(r"evaluations +about \d+ \(between \d+ and \d+\)", shown)
    assert "row 32: A prompt of" in shown or "row 32: The prompt has" in shown
    assert len(lines(out)) == 32, "nothing was deleted"


def test_a_dry_run_of_rows_that_all_have_faults(run: Run, tmp_path: Path, out: Path) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": ""}, {"prompt": None}])
    ended = run(data, "--out", out, "--target", " y", "--skip-errors", "--dry-run")
    assert (ended.code, ended.out) == (1, "")
    assert "2 rows of" in ended.err
    assert "cannot be attributed: line 1: The prompt must not be empty" in ended.err
    some = jsonl(tmp_path / "some.jsonl", [{"prompt": "a b"}, {"prompt": ""}])
    counted = run(some, "--out", out, "--target", " y", "--skip-errors", "--dry-run", "--json").json()
    assert (counted["rows"], list(counted["failing"])) == (1, ["2"])


def test_a_dry_run_says_that_saved_scores_are_not_subtracted(run: Run, data: Path, out: Path) -> None:
    words = [data, "--out", out, "--target", " y", "--method", "ablation"]
    told = "scores in the cache are not subtracted"
    assert told not in run(*words, "--dry-run").err
    assert run(*words).code == 0
    assert told in run(*words, "--restart", "--dry-run").err


def test_targets_that_the_model_wrote_are_counted(run: Run, command: Run, tmp_path: Path, out: Path) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "a b"}, {"prompt": "a b", "target": " y"}])
    words = [data, "--out", out, "--method", "ablation", "--max-new-tokens", 2]
    assert re.search(r"targets +1 target written by the model, 1 cut off", run(*words).out)
    assert re.search(r"targets +1 target written by the model, 1 cut off", command("show", out).out)
    assert [item["target_end"] for item in command("show", out, "--json").json()["items"]] == ["limit", None]


def test_parents_of_the_folder_are_not_made_up(run: Run, no_model: None, data: Path, tmp_path: Path) -> None:
    ended = run(data, "--out", tmp_path / "none" / "out")
    assert (ended.code, "there is no folder" in ended.err) == (1, True)
    assert not (tmp_path / "none").exists()


def test_rows_with_the_same_id_fail_alone(run: Run, tmp_path: Path, out: Path) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "a"}, {"prompt": "b", "id": 1}, {"prompt": "c", "id": 1}])
    ended = run(data, "--out", out, "--target", " y", "--skip-errors")
    assert {line["id"]: line["status"] for line in lines(out)} == {"1": "ok", "line 1": "failed", "line 3": "failed"}
    assert ended.code == 1


# --- rows that fail --------------------------------------------------------------------------------------------------

BAD = [
    {"prompt": ""},
    "[3]",
    {"prompt": "3.5"},
    {"prompt": "a b", "seed": "x"},
    '{"prompt": ',
    {"prompt": ["no message"]},
    {"prompt": None},
]


@pytest.mark.usefixtures("no_model")
def test_bad_rows_are_refused_before_the_model_is_loaded(run: Run, tmp_path: Path, out: Path) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "a b"}, "", *BAD])
    ended = run(data, "--out", out)
    assert ended.code == 1
    assert "error: 6 rows of " in ended.err
    assert "d.jsonl cannot be attributed: line 3: The prompt must not be empty" in ended.err
    for place, why in (
        (4, "it is not a JSON object"),
        (6, "the column 'seed' holds"),
        (7, "it is not JSON (Expecting"),
    ):
        assert f"; line {place}: {why}" in ended.err
    assert "at character 11)" in ended.err
    assert "--skip-errors" in ended.err
    assert not out.exists()


def test_bad_rows_and_failures_are_written_down(run: Run, tmp_path: Path, out: Path) -> None:
    data = jsonl(
        tmp_path / "d.jsonl", [{"prompt": "a b"}, *BAD, {"prompt": "c d", "target": ""}, {"prompt": "x" * 600}]
    )
    ended = run(data, "--out", out, "--skip-errors", "--target", " y", "--json")
    assert ended.code == 1
    found = {line["id"]: line for line in lines(out)}
    assert {i for i, line in found.items() if line["status"] == "ok"} == {"1", "4", "9"}
    assert "line 2: The prompt must not be empty" in found["2"]["error"]["message"]
    assert "a whole number is needed" in found["5"]["error"]["message"]
    assert "context length" in found["10"]["error"]["message"]
    assert "row 10 failed: " in ended.err
    assert ended.json()["failed"] == 7
    again = run(data, "--out", out, "--skip-errors", "--target", " y", "--json")
    assert (again.code, again.json()["failed"], again.json()["failed_before"]) == (1, 0, 7)
    assert len(lines(out)) == 10
    retried = run(data, "--out", out, "--skip-errors", "--target", " y", "--json", "--retry-failed").json()
    assert (retried["failed"], retried["done"], retried["done_before"]) == (7, 0, 3)
    assert [row_id for row_id, _ in ap.load_results(out)] == ["1", "4", "9"]


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        ("d.txt", "a", [], "The suffix of"),
        ("d.jsonl", "", [], "has no rows"),
        (
            "d.jsonl",
            '{"text": "a"}\n',
            [],
            "has no column 'prompt' for the prompts. Its columns: text. Name the right one with --prompt",
        ),
        ("d.jsonl", '{"a": "a"}\n', ["--template", "{a} {b}"], "has no column 'b' for the slot 'b' of the template"),
        ("d.jsonl", '{"a": "a"}\n', ["--template", "{b}", "--value", "b=1"], "every slot has a --value"),
        ("d.csv", "prompt,prompt\na,b\n", [], "two columns called 'prompt'"),
        (
            "d.csv",
            "prompt,id\na b,1,2\n",
            [],
            "line 2, cannot be attributed: it has 3 cells, and the header has 2",
        ),
        ("d.csv", "id,prompt\n1,a\n1,b\n", [], "line 3, cannot be attributed: it has the id '1', and so has line 2"),
        (
            "d.csv",
            "id,prompt\n,a\n1,b\n,\n",
            [],
            "line 2: it has no id, so that its number would name its result, and '1' is the id of line 3",
        ),
        ("d.csv", "id,prompt\n,a\n1,b\n,\n", [], "; line 4: The prompt must not be empty"),
        ("d.csv", "prompt,a\nb,c\n", ["--target-column", "aim"], "no column 'aim', which --target-column names"),
        ("d.csv", "prompt,key\nb,c\n", ["--id-column", "kee"], "Did you mean 'key'? Its columns: prompt, key."),
        (
            "d.csv",
            "prompt,Target\nb,c\n",
            ["--contrast", " x"],
            "unused columns: Target (did you mean 'target'?)",
        ),
        ("d.jsonl", '{"prompt": "a"}\n{"promt": "b"}\n', [], "it has no 'prompt'. Did you mean 'promt'?"),
        ("d.csv", "prompt,contrast\n,\nb, x\n", [], "; line 3: The contrast ' x' has no effect"),
        ("d.parquet", "no", [], "Parquet"),
        ("d.jsonl", '{"prompt": "a", "seed": -1}\n', [], "--seed -1 must be a whole number of at least 0"),
        ("d.jsonl", '{"prompt": 3.5}\n', [], "the column of prompts holds 3.5, but a text is needed"),
        ("d.jsonl", '{"prompt": null}\n', [], "the column of prompts holds no value (null), but a text is needed"),
        ("d.jsonl", '{"prompt": "a", "target": 5}\n', [], "holds 5, but a text is needed, or a list of token ids"),
        ("d.jsonl", '{"prompt": "a", "target": [1, true]}\n', [], "holds [1, true], but a text is needed, or a list"),
        ("d.csv", "id;prompt\n1;a\n", [], "seem to be separated by semicolons; save it with commas"),
        ("d.csv", "id,prompt\n1\n", [], "line 2, cannot be attributed: it has 1 cell, and the header has 2"),
        ("d.csv", "prompt\na\n", ["--contrast", " x"], "error: The contrast ' x' has no effect"),
        (
            "d.csv",
            "prompt\na\nb\n",
            ["--target-fn", "contrast_prob_diff"],
            "error: The target function 'contrast_prob_diff'",
        ),
        ("d.csv", "prompt,contrast\na, x\nb,\n", [], "line 2, cannot be attributed: The contrast ' x' has no effect"),
        ("d.csv", "prompt,contrast\na, x\nb,\n", ["--target-fn", "contrast_prob_diff"], "line 3, cannot be attributed"),
        ("d.csv", "prompt\na\n", ["--target", ""], "the text is empty"),
        (
            "d.jsonl",
            '{"prompt": "a", "target": "\\ud800"}\n',
            [],
            "The text in the column 'target' has an invalid Unicode character",
        ),
        (
            "d.jsonl",
            '{"prompt": [{"role": "user", "content": "\\ud800"}]}\n',
            [],
            "line 1, cannot be attributed: The text in the column 'prompt' has an invalid Unicode character",
        ),
        ("d.jsonl", '{"prompt": "a"}\n', ["--method", "shaply"], "Did you mean 'shapley'"),
        ("d.jsonl", '{"prompt": "a"}\n', ["--group", "a,b"], "there is no --template"),
        ("d.jsonl", '{"prompt": "a"}\n', ["--save", "x.json"], "No such option"),
    ],
)
def test_what_cannot_work_is_refused(
    run: Run, tmp_path: Path, out: Path, name: str, content: str, words: list[str], message: str
) -> None:
    (tmp_path / name).write_text(content)
    ended = run(tmp_path / name, "--out", out, *words)
    assert ended.code in (1, 2)
    assert message in " ".join(ended.err.replace("│", " ").split())
    assert not (out / "run.json").exists()


def test_wrong_token_ids_are_refused_before_the_first_row(run: Run, tmp_path: Path, out: Path) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "a b"}, {"prompt": "c d", "target": [1, 99999]}])
    for words, message in (
        (["--target-ids", "1,99999"], "error: The target id 99999 is outside the vocabulary"),
        (["--target", " y"], "line 2, cannot be attributed: The target id 99999 is outside the vocabulary"),
    ):
        ended = run(data, "--out", out, *words)
        assert (ended.code, message in ended.err) == (1, True)
        assert not (out / "run.json").exists(), "so that no --restart is needed"
    words = [data, "--out", out, "--target", " y", "--skip-errors", "--json"]
    skipped = run(*words).json()
    assert (skipped["done"], skipped["failed"]) == (1, 1)
    again = run(*words, "--retry-failed").json()
    assert (again["done_before"], again["failed"]) == (1, 1), "where only bad rows are left, too"


def test_token_ids_as_targets(run: Run, tmp_path: Path, out: Path) -> None:
    rows = [{"prompt": "a b", "target": [1, 2]}, {"prompt": "a b", "target": " y"}]
    assert run(jsonl(tmp_path / "d.jsonl", rows), "--out", out, "--method", "ablation").code == 0
    first, second = (result for _, result in ap.load_results(out))
    assert (len(first.target_tokens), second.target_text) == (2, " y")


def test_a_row_that_cannot_be_read_is_named_once(run: Run, tmp_path: Path, out: Path) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "a b"}, "[3]"])
    told = run(data, "--out", out, "--target", " y", "--skip-errors").err
    assert "line 2 failed: it is not a JSON object" in told
    assert told.count("line 2") == 1


# --- going on --------------------------------------------------------------------------------------------------------


def test_other_arguments_models_and_rows_are_refused(run: Run, data: Path, out: Path, tmp_path: Path) -> None:
    words = ["--out", out, "--target", " y"]
    assert run(data, *words).code == 0
    changed = run(data, "--out", out, "--target", " z", "--budget", 9)
    assert changed.code == 1
    assert "--budget was not given and is now 9; --target was ' y' and is now ' z'." in changed.err
    assert "--restart, which deletes the 4 rows there" in changed.err
    tokenizer = tmp_path / "tokenizer"
    tiny.tokenizer(adds_start=True).save_pretrained(tokenizer)
    renamed = run(data, *words, "--tokenizer", tokenizer)
    assert (renamed.code, "--tokenizer was not given and is now" in renamed.err) == (1, True)
    other = tmp_path / "other"
    tiny.model("gpt2").save_pretrained(other)
    tiny.tokenizer().save_pretrained(other)
    more = jsonl(tmp_path / "more.jsonl", [*ROWS, {"prompt": "new"}])
    assert "was started with another model" in run(more, *words, model=other).err
    assert "was started with another model" in run(data, *words, model=other).err, "no row is left"
    assert "There is no folder or file" in run(data, *words, model=tmp_path / "no-model").err
    assert run(more, *words, "--json").json()["done"] == 1
    assert "has a row '5' that is no longer in the dataset" in run(data, *words).err
    edited = jsonl(tmp_path / "edited.jsonl", [*ROWS[:3], {"prompt": "other"}, {"prompt": "new"}])
    assert "Row '4' (line 4) has changed since" in run(edited, *words).err
    anew = run(data, "--out", out, "--target", " z", "--restart", "--json").json()
    assert (anew["done"], anew["done_before"]) == (4, 0)
    assert len(lines(out)) == 4


def test_a_folder_of_something_else_is_left_alone(run: Run, data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("all of it")
    assert (
        "is not empty, but has no results of `apportion run` (it contains thesis.tex)" in run(data, "--out", mine).err
    )
    assert [file.name for file in mine.iterdir()] == ["thesis.tex"]
    for place in (mine / "thesis.tex", mine / "thesis.tex" / "deeper" / "down"):
        assert f"{mine / 'thesis.tex'} is a file" in run(data, "--out", place).err


@pytest.mark.usefixtures("no_model")
def test_two_processes_cannot_write_to_one_folder(run: Run, data: Path, out: Path) -> None:
    with ResultsFolder(out).locked():
        ended = run(data, "--out", out)
    assert ended.code == 1
    assert "Another process is writing to" in ended.err


def test_a_line_that_was_cut_off_is_dropped_and_its_row_recalled(run: Run, data: Path, out: Path) -> None:
    run(data, "--out", out, "--target", " y")
    whole = numbers(out)
    file = out / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    assert list(numbers(out)) == ["ann", "2", "3"]
    again = run(data, "--out", out, "--target", " y", "--json").json()
    assert (again["done"], again["evaluations"]) == (1, 0)
    assert again["cached"] > 0
    assert numbers(out) == whole
    file.write_bytes(b"{}\n" + file.read_bytes())
    assert "Line 1 of" in run(data, "--out", out, "--target", " y").err
    with pytest.raises(ap.ResultError, match="Line 1 of"):
        list(ap.load_results(out))
    with pytest.raises(ap.ResultError, match="Cannot read"):
        ap.load_results(out / "nothing")
    with pytest.raises(ap.InputError, match="takes the folder of a run, not 3"):
        ap.load_results(3)  # type: ignore[arg-type]


DEADLY = """
import os, signal, sys
import apportion as ap

batches = 0

@ap.hookimpl(wrapper=True)
def apportion_score(batch):
    global batches
    found = yield
    batches += 1
    with open(os.environ["ROWS_LOG"], "a") as file:
        file.write(f"{batch.n_rows}\\n")
    if batches == int(os.environ.get("DIE_AFTER", "0")):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    return found
"""


@pytest.fixture
def process(tmp_path: Path, tiny_model_dir: Path, forks: Forks) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``apportion run`` in a process of its own, which a plugin may end and which notes what is scored."""
    plugin = tmp_path / "site"
    info = plugin / "deadly-1.0.dist-info"
    info.mkdir(parents=True)
    (plugin / "deadly.py").write_text(DEADLY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[apportion]\ndeadly = deadly\n")

    def call(*words: object, log: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from apportion.cli import main; sys.exit(main())"
        paths = os.pathsep.join([str(plugin), *[path for path in sys.path if path]])
        known = {"PYTHONPATH": paths, "ROWS_LOG": str(log), "HF_HUB_OFFLINE": "1"}
        return forks.run(code, "run", *words, "--model", tiny_model_dir, env=known | environment)

    return call


def scored(log: Path) -> int:
    return sum(map(int, log.read_text().split()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_after_a_kill_nothing_is_lost_and_nothing_is_scored_twice(
    tmp_path: Path, process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    rows = [{"prompt": f"word{i} a b c{i}"} for i in range(6)]
    data = jsonl(tmp_path / "d.jsonl", rows)
    words = [data, "--target", " y", "--at-once", 2, "--memory-budget", "1", "--json"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = process(*words, "--out", whole, log=tmp_path / "whole.log")
    assert done.returncode == 0, done.stderr
    deaths = 0
    for after in ("40", "25"):
        dead = process(
            *words, "--out", killed, log=tmp_path / "killed.log", DIE_AFTER=after, SIGNAL=str(int(signal.SIGKILL))
        )
        assert dead.returncode == -signal.SIGKILL, dead.stderr
        deaths += 1
    between = lines(killed)
    assert 0 < len(between) < 6
    last = process(*words, "--out", killed, log=tmp_path / "killed.log")
    assert last.returncode == 0, last.stderr
    assert [line["id"] for line in lines(killed)].count("1") == 1
    assert sorted(line["id"] for line in lines(killed)) == ["1", "2", "3", "4", "5", "6"]
    assert json.loads(last.stdout)["done_before"] == len(between)
    # Each death loses the batch that was in flight, which is one row here, and nothing else.
    assert scored(tmp_path / "killed.log") == scored(tmp_path / "whole.log") + deaths
    one, other = dict(ap.load_results(whole)), dict(ap.load_results(killed))
    for row_id, result in one.items():
        np.testing.assert_allclose(result.token_values, other[row_id].token_values, atol=1e-5)
        spent = [r.provenance.evaluations + r.provenance.cached for r in (result, other[row_id])]
        assert spent[0] == spent[1] == 16


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_whole_lines_and_says_how_to_go_on(
    tmp_path: Path, process: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": f"word{i} a b c{i}"} for i in range(4)])
    words = [data, "--out", tmp_path / "out", "--target", " y", "--at-once", 1, "--memory-budget", "1"]
    ended = process(*words, log=tmp_path / "log", DIE_AFTER="24", SIGNAL=str(int(signal.SIGINT)))
    assert ended.returncode == 130, ended.stderr
    assert "has 1 of 4 rows" in ended.stderr
    assert "repeat the command to resume it" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [line["id"] for line in lines(tmp_path / "out")] == ["1"]
    went_on = process(*words, "--json", log=tmp_path / "log")
    assert json.loads(went_on.stdout)["done"] == 3
    assert len(lines(tmp_path / "out")) == 4


def test_rows_that_could_not_be_read_can_be_fixed(run: Run, tmp_path: Path, out: Path) -> None:
    """Their numbers are not taken for ids, which others may have."""
    data = jsonl(tmp_path / "d.jsonl", ['{"id": "a", "prompt": "x y"', {"id": 1, "prompt": "c d"}, {"prompt": ""}])
    asked = ("--out", out, "--skip-errors", "--method", "ablation", "--target", " q", "--json")
    assert run(data, *asked).code == 1
    assert {line["id"]: line["status"] for line in lines(out)} == {"line 1": "failed", "1": "ok", "3": "failed"}
    jsonl(data, [{"id": "a", "prompt": "x y"}, {"id": 1, "prompt": "c d"}, {"prompt": "e f"}])
    fixed = run(data, *asked)
    assert fixed.code == 0
    summary = fixed.json()
    assert (summary["done"], summary["done_before"], summary["failed_before"]) == (2, 1, 0)
    assert sorted(row_id for row_id, _ in ap.load_results(out / "results.jsonl")) == ["1", "3", "a"]


def test_results_without_a_manifest_are_not_mixed_with_others(run: Run, data: Path, out: Path) -> None:
    assert run(data, "--out", out, "--target", " y", "--method", "ablation").code == 0
    (out / "run.json").unlink()
    ended = run(data, "--out", out, "--target", " y", "--method", "shapley")
    assert ended.code == 1
    assert "holds results but no run.json that describes them" in ended.err


def test_long_cells(tmp_path: Path) -> None:
    """Longer than what Python's parser takes by default, which is left as it is."""
    file, limit = tmp_path / "rows.csv", csv.field_size_limit()
    file.write_text(f'prompt,seed\n"{"w " * 100_000}",\nb,1.0\n', encoding="utf-8")
    records = read_records(file)
    assert len(records[0].values["prompt"]) == 200_000
    assert csv.field_size_limit() == limit


def test_rows_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('"prompt",seed\na,1\n', encoding="utf-8-sig")
    assert read_records(file)[0].values == {"prompt": "a", "seed": "1"}
    # As `cat` joins files.
    file = tmp_path / "rows.jsonl"
    file.write_text('\ufeff{"prompt": "a"}\r\n\ufeff{"prompt": "b"}\r\n', encoding="utf-8")
    assert [record.values for record in read_records(file)] == [{"prompt": "a"}, {"prompt": "b"}]


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_rows_that_are_not_utf8_are_refused(run: Run, no_model: None, tmp_path: Path, out: Path, name: str) -> None:
    file = tmp_path / name
    for encoding, message in (("utf-16", "UTF-16"), ("cp1252", "Latin-1, Windows-1252")):
        file.write_text('prompt\n{"prompt": "ä"}\n', encoding=encoding)
        ended = run(file, "--out", out)
        assert (ended.code, ended.out) == (1, "")
        assert f"{file} is not UTF-8 text" in ended.err
        assert f"looks like {message}" in ended.err
        assert "iconv -f" in ended.err


def test_results_that_an_editor_saved_again(run: Run, data: Path, out: Path) -> None:
    run(data, "--out", out, "--target", " y")
    before = numbers(out)
    for file in (out / "run.json", out / "results.jsonl"):
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert numbers(out) == before
    assert run(data, "--out", out, "--target", " y", "--json").json()["done"] == 0
    for file in (out / "results.jsonl", out / "run.json"):
        file.write_text(file.read_text(encoding="utf-8-sig"), encoding="utf-16")
        assert "is not UTF-8 text; it looks like UTF-16" in run(data, "--out", out, "--target", " y").err


def test_whole_numbers_that_became_floats(tmp_path: Path) -> None:
    """As pandas writes a column of seeds with empty cells."""
    file = jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "seed": seed} for seed in ("1.0", 1.0, "7", 7)])
    items, _ = read_items(file, PromptOptions(), Columns())
    assert [item.arguments["seed"] for item in items] == [1, 1, 7, 7]
    jsonl(file, [{"prompt": "a", "seed": seed} for seed in ("1.5", 1.5, True)])
    for item in read_items(file, PromptOptions(), Columns())[0]:
        assert "a whole number is needed" in (item.fault or "")

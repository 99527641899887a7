"""The run log: a line for each run, however it ends, and never the end of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import apportion as ap
from apportion.cli import main
from apportion.testing import tiny
from apportion_plugins.run_log import SCHEMA, SCHEMA_VERSION, RunLog

FIELDS = [
    "schema", "version", "status", "error", "started", "request", "evaluations", "cached", "forwarded_tokens",
    "encoded_media", "batches", "seconds", "model", "fingerprint", "backend", "device", "dtype", "versions", "notes",
]  # fmt: skip
REQUESTED = ["prompt", "features", "target", "method", "options", "target_fn", "budget", "seed"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


def explainer(path: str | Path, *plugins: object, **options: Any) -> ap.Explainer:
    return ap.Explainer((tiny.model(), tiny.tokenizer()), run_log=path, plugins=plugins, **options)


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line, of which each ends."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        assert list(line) == FIELDS
        assert list(line["request"]) == REQUESTED
        assert (line["schema"], line["version"]) == (SCHEMA, SCHEMA_VERSION)
        assert line["versions"]["apportion"] == ap.__version__
        assert sum(line["seconds"].values()) == pytest.approx(2 * line["seconds"]["total"], abs=1e-3)
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["started"])).total_seconds()) < 60
    return found


def test_two_runs_are_two_lines(path: Path) -> None:
    runs = explainer(path, memory_budget=1)
    first = runs.attribute("a b c", "xyz", budget=100, seed=4)
    runs.attribute(ap.Template("{a} {b}", {"a": "x", "b": "y"}), [87, 88], method="ablation", target_fn="prob")
    one, two = lines(path)
    assert one["status"] == "ok"
    assert one["error"] is None
    assert one["request"] == {
        "prompt": {"type": "Text", "text": "a b c", "tokens": None},
        "features": ["a", "b", "c"],
        "target": {"text": "xyz", "ids": [87, 88, 89], "generated": False},
        "method": "shapley",
        "options": {},
        "target_fn": "log_prob",
        "budget": 100,
        "seed": 4,
    }
    assert (one["evaluations"], one["cached"], one["batches"]) == (8, 0, 8)
    provenance = first.provenance
    for name in ("forwarded_tokens", "model", "fingerprint", "backend", "device", "dtype", "versions"):
        assert one[name] == getattr(provenance, name), name
    assert one["notes"] == list(provenance.notes) != []
    assert one["seconds"]["total"] >= provenance.seconds - 1e-3
    assert one["seconds"]["scoring"] > 0
    assert two["request"]["prompt"] == {"type": "Template", "text": "x y", "tokens": None}
    assert two["request"]["target"]["text"] == "xy"


class Slow:
    """Takes its time with the model."""

    @ap.hookimpl(wrapper=True)
    def apportion_score(self) -> Iterator[None]:
        found = yield
        time.sleep(0.05)
        return found


def test_time_is_told_apart(path: Path) -> None:
    explainer(path, Slow()).attribute("a b", None, method="ablation", generate={"max_new_tokens": 3})
    (line,) = lines(path)
    assert line["request"]["target"]["generated"] is True
    assert line["seconds"]["generating"] > 0
    assert line["seconds"]["scoring"] >= 0.05
    assert line["batches"] == 1


def test_what_the_cache_knew(path: Path, tmp_path: Path) -> None:
    runs = explainer(path, cache=tmp_path / "cache.sqlite3")
    for _ in range(2):
        runs.attribute("a b", "x")
    assert [(x["evaluations"], x["cached"], x["batches"]) for x in lines(path)] == [(4, 0, 1), (0, 4, 0)]
    assert lines(path)[1]["forwarded_tokens"] == 0


class Raising:
    """Ends a run while it scores."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @ap.hookimpl(wrapper=True)
    def apportion_score(self) -> Iterator[None]:
        yield
        raise self.error


class Interrupting:
    """Ctrl-C after the first batch."""

    @ap.hookimpl
    def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
        if event.done:
            raise KeyboardInterrupt


def test_a_run_that_failed(path: Path) -> None:
    with pytest.raises(ap.PluginError, match="The plugin 'Raising' failed in apportion_score") as failure:
        explainer(path, Raising(RuntimeError("no\nluck"))).attribute("a b", "x")
    (line,) = lines(path)
    assert line["status"] == "failed"
    assert line["error"] == {"type": "PluginError", "message": str(failure.value)}
    assert line["request"]["target"]["text"] == "x"
    assert (line["evaluations"], line["batches"], line["cached"], line["fingerprint"]) == (0, 0, None, None)
    assert (line["backend"], line["device"], line["dtype"]) == ("torch", "cpu", "float64")


def test_an_interrupted_run(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        explainer(path, Interrupting(), memory_budget=1).attribute("a b", "x")
    (line,) = lines(path)
    assert line["status"] == "interrupted"
    assert line["error"]["type"] == "KeyboardInterrupt"
    assert (line["evaluations"], line["batches"]) == (1, 1)


def test_a_request_that_makes_no_sense(path: Path) -> None:
    runs = explainer(path)
    for arguments in ({"target_fn": "nothing"}, {"method": "ablation", "depth": 3}):
        with pytest.raises(ap.InputError):
            runs.attribute("a b", "x", **arguments)
    early, late = lines(path)
    assert early["error"]["type"] == "UnknownNameError"
    assert set(early["request"].values()) == {None}
    assert late["request"]["features"] == ["a", "b"]
    assert late["request"]["prompt"] == {"type": "Text", "text": "a b", "tokens": None}
    assert late["request"]["method"] is late["backend"] is late["model"] is None
    assert runs.attribute("c", "x").features[0].name == "c"
    assert lines(path)[2]["request"]["features"] == ["c"]


class Bare:
    """An adapter that shows no text."""

    features = (ap.Feature("one", "1"),)

    def render(self, mask: torch.Tensor) -> list[ap.ModelInput]:
        return [ap.ModelInput((5, 6, 7) if row.all() else (5,)) for row in mask]


class Adapting:
    @ap.hookimpl
    def apportion_adapt_input(self, prompt: object) -> Bare | None:
        return Bare() if isinstance(prompt, bytes) else None


def test_a_prompt_without_text_is_counted(path: Path) -> None:
    explainer(path, Adapting()).attribute(b"\x00", "x")
    assert lines(path)[0]["request"]["prompt"] == {"type": "bytes", "text": None, "tokens": 3}


class AnyOption:
    estimand, requires = "nothing", frozenset()

    def run(self, game: ap.Game, *, budget: int, rng: torch.Generator, what: object = object) -> ap.Estimate:
        return ap.Estimate(torch.zeros(game.n_features, game.n_outputs, dtype=torch.float64))


def test_options_of_any_kind(path: Path) -> None:
    class Thing:
        def __repr__(self) -> str:
            return "Thing(1)"

    odd = {
        1: [np.float32(0.5), np.int64(3)],
        "a": (Thing(), float("nan"), b"x"),
        "t": torch.ones(2),
        "u": "\u2028\x85é",
    }
    explainer(path).attribute("a", "x", method=AnyOption(), what=odd)
    explainer(path).attribute("a", "x", method=AnyOption())
    first, second = lines(path)
    assert first["request"]["options"] == {
        "what": {"1": [0.5, 3], "a": ["Thing(1)", "nan", "b'x'"], "t": [1.0, 1.0], "u": "\u2028\x85é"}
    }
    assert second["request"]["options"] == {"what": "<class 'object'>"}


def test_a_line_that_was_cut_off_spoils_no_other(path: Path) -> None:
    path.write_text('{"schema": "apport')
    explainer(path).attribute("a", "x")
    cut, whole = path.read_text().splitlines()
    assert cut == '{"schema": "apport'
    assert json.loads(whole)["status"] == "ok"


def test_permissions_are_those_of_any_new_file(path: Path, tmp_path: Path) -> None:
    explainer(path).attribute("a", "x")
    (tmp_path / "other").write_text("")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("make", ["removed folder", "folder", "pipe", "full"])
def test_a_log_that_cannot_be_written_warns(make: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = Path("/dev/full") if make == "full" else folder / "runs.jsonl"
    runs = explainer(path)
    if make == "removed folder":
        folder.rmdir()
    elif make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    with pytest.warns(RuntimeWarning, match=rf"The run log {path} cannot be written: .*This run is not logged"):
        assert runs.attribute("a b", "x").provenance.evaluations == 4


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (True, "run_log=True is not enough; give its path"),
        ("", "must be the path of a file"),
        (3, "run_log=3 must be the path of a file"),
        ("/no/such/folder/runs.jsonl", "there is no folder /no/such/folder. Create it"),
        ("/tmp", "run_log='/tmp' is a folder"),
    ],
)
def test_paths_that_cannot_be(wrong: Any, why: str) -> None:
    with pytest.raises(ap.InputError, match=why):
        ap.Explainer("no model is loaded before this is refused", run_log=wrong)


def test_the_path_stays_when_the_folder_changes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    runs = explainer(path.name)
    monkeypatch.chdir("/")
    runs.attribute("a", "x")
    assert len(lines(path)) == 1


APPENDING = """
import sys
import apportion as ap
from apportion_plugins.run_log import RunLog
log, end = RunLog(sys.argv[1]), ap.ProgressEvent("end", error=ap.ScoreError(sys.argv[2] * 5000))
for _ in range(300):
    log.apportion_on_progress(end)
"""


def test_processes_and_threads_share_a_log(path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", APPENDING, path, mark]) for mark in "abc"]
    log = RunLog(path)

    def run(prompt: str) -> None:
        one = ap.Explainer((tiny.model(), tiny.tokenizer()), plugins=[log])
        for _ in range(10):
            one.attribute(prompt, "x")

    threads = [threading.Thread(target=run, args=[prompt]) for prompt in ("a b", "c d e")]
    for thread in threads:
        thread.start()
    for worker in (*threads, *processes):
        worker.join() if isinstance(worker, threading.Thread) else worker.wait()
    found = lines(path)
    failed = [run["error"]["message"] for run in found if run["error"]]
    assert sorted(failed) == ["a" * 5000] * 300 + ["b" * 5000] * 300 + ["c" * 5000] * 300
    ran = [run for run in found if not run["error"]]
    assert sorted((run["request"]["prompt"]["text"], run["evaluations"]) for run in ran) == [
        *[("a b", 4)] * 10,
        *[("c d e", 8)] * 10,
    ]


def test_the_command_line(tiny_model_dir: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["attribute", "--model", str(tiny_model_dir), "a b", "--target", "x", "--json", "--run-log"]
    assert main([*words, str(path)]) == 0
    assert capsys.readouterr().err == ""
    assert lines(path)[0]["request"]["features"] == ["a", "b"]
    assert main([*words, "/dev/full"]) == 0
    assert capsys.readouterr().err == (
        "warning: The run log /dev/full cannot be written: No space left on device. This run is not logged.\n"
    )
    assert main([*words, str(path / "below" / "x")]) == 1
    assert "--run-log " in capsys.readouterr().err
    assert main([*words, str(path.with_suffix(".json")), "--save", str(path.with_suffix(".json"))]) == 2
    assert "is already what --save writes" in " ".join(capsys.readouterr().err.replace("│", " ").split())

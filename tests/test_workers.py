"""Many prompts in other processes: executors, shards, and what is left when something is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apportion as ap
from apportion.cli import main
from apportion.testing import tiny
from apportion.testing.server import CompletionsServer
from apportion_backends.known_again import PROBE
from apportion_backends.torch.backend import TorchBackend

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'apportion[ray]'")
TARGET = " seven"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def server() -> Iterator[CompletionsServer]:
    session = TorchBackend().load(tiny.spec(), device=None, dtype=None, memory_budget=None)
    with CompletionsServer(session, session.tokenizer) as found:
        yield found


def prompts(count: int) -> list[str]:
    return [f"prompt {number} says one two three" for number in range(count)]


# --- executors ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_of_ray_give_the_same_results(folder: Path) -> None:
    with ap.Explainer(folder, dtype="float64", progress=False) as explainer:
        calls: list[Any] = [*prompts(7), {"prompt": prompts(1)[0], "target": " x", "seed": 3}]
        shared: dict[str, Any] = {"target": TARGET, "method": "kernel_shap", "budget": 20}
        ended: list[int] = []
        ours = list(
            explainer.attribute_many(
                calls,
                at_once=2,
                executor=ap.RayExecutor(workers=2),
                on_finish=lambda number, outcome: ended.append(number),
                **shared,
            )
        )
        for one, other in zip(ours, explainer.attribute_many(calls, **shared), strict=True):
            np.testing.assert_allclose(one.values, other.values, atol=1e-9)
            assert one.provenance.seed == other.provenance.seed
        assert sorted(ended) == list(range(8))
        failed = explainer.attribute_many(
            [prompts(1)[0], ""], executor=ap.RayExecutor(1), on_error="return", target=TARGET, method="ablation"
        )
        good, bad = failed
        assert isinstance(good, ap.Attribution) and isinstance(bad, ap.InputError)


def test_what_cannot_be_sent_is_refused(folder: Path) -> None:
    refused = pytest.raises(ap.InputError, match="Workers open the model themselves, so it must be a name")
    with ap.Explainer((tiny.model(), tiny.tokenizer()), progress=False) as explainer, refused:
        explainer.attribute_many(prompts(2), executor=ap.RayExecutor())
    with ap.Explainer(folder, progress=False) as explainer:
        with pytest.raises(ap.InputError, match=r"target_fn=<function .* of prompts\[0\] cannot be sent"):
            [*explainer.attribute_many(prompts(2), executor=ap.RayExecutor(), target_fn=lambda logits: logits)]
        with pytest.raises(ap.InputError, match="executor=3 is not an Executor"):
            explainer.attribute_many(prompts(2), executor=3)
    with pytest.raises(ap.InputError, match="workers=0 must be a whole number"):
        ap.RayExecutor(0)


class Here:
    """An executor of this process, whose mistakes can be chosen."""

    def __init__(self, alter: Callable[[list[tuple[int, object]]], list[tuple[int, object]]]) -> None:
        self._alter = alter

    def outcomes(
        self, settings: Mapping[str, Any], calls: Sequence[Mapping[str, Any]], *, at_once: int
    ) -> Generator[tuple[int, object], None, None]:
        with ap.Explainer(**settings) as explainer:
            found: list[tuple[int, object]] = [(i, explainer.attribute(**call)) for i, call in enumerate(calls)]
        yield from self._alter(found)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda found: found[:-1], "left out 1 of 3 calls"),
        (lambda found: [*found, found[0]], "returned the call 0 again"),
        (lambda found: [(7, found[0][1])], "returned the call 7 again"),
        (lambda found: [(0, None)], "returned None"),
    ],
)
def test_an_executor_that_loses_or_repeats_is_refused(folder: Path, alter: Any, message: str) -> None:
    with ap.Explainer(folder, progress=False) as explainer:
        shared: dict[str, Any] = {"target": TARGET, "method": "ablation"}
        assert len([*explainer.attribute_many(prompts(3), executor=Here(lambda found: found[::-1]), **shared)]) == 3
        with pytest.raises(ap.PluginError, match=message):
            [*explainer.attribute_many(prompts(3), executor=Here(alter), **shared)]


# --- shards ---------------------------------------------------------------------------------------------------------


def written(path: Path, count: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts(count)), encoding="utf-8")
    return path


def test_shards_are_collected(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out, alone = written(tmp_path / "rows.jsonl", 7), tmp_path / "out", tmp_path / "alone"
    command = ["run", str(data), "-m", str(folder), "--target", TARGET, "--method", "ablation", "--json"]
    out.mkdir()
    counts = []
    for number in (3, 1, 2):
        assert main([*command, "--out", str(out), "--shard", f"{number}/3"]) == 0
        counts.append(json.loads(capsys.readouterr().out)["done"])
    assert sorted(counts) == [2, 2, 3]
    assert main([*command, "--out", str(out)]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["done"], summary["done_before"], summary["evaluations"]) == (0, 7, 0)
    assert main([*command, "--out", str(alone)]) == 0
    ours, theirs = (dict(ap.load_results(path)) for path in (out, alone))
    assert ours.keys() == theirs.keys()
    for row, result in ours.items():
        np.testing.assert_allclose(result.values, theirs[row].values, atol=1e-5)
    capsys.readouterr()
    assert main([*command, "--out", str(out), "--seed", "5"]) == 1
    assert "was started with other arguments: --seed" in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["0/3", "4/3", "a/b", "2"])
def test_a_shard_that_is_none_is_refused(tmp_path: Path, shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path / "rows.jsonl", 2)
    assert main(["run", str(data), "--out", str(tmp_path / "out"), "--shard", shard]) == 2
    assert "is not a part" in capsys.readouterr().err


def test_an_engine_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path / "rows.jsonl", 2)
    assert main(["run", str(data), "--out", str(tmp_path / "out"), "--engine", "dask"]) == 2
    assert "'dask' is not an engine" in capsys.readouterr().err


# --- kill -9 --------------------------------------------------------------------------------------------------------

ROWS = 200
EVALUATIONS = 7
DISTINCT = ROWS * (EVALUATIONS - 1) + 1
"""Without its number, each prompt is the same."""


class Job:
    """``apportion run`` over a server, in a process of its own."""

    def __init__(self, server: CompletionsServer, path: Path, tokenizer: Path, *more: str) -> None:
        self.out = path / "out"
        self._command = [sys.executable, "-m", "apportion", "run", str(written(path / "rows.jsonl", ROWS))]
        self._command += ["--out", str(self.out), "-m", server.address, "--tokenizer", str(tokenizer)]
        self._command += ["--target", TARGET, "--method", "ablation", "--features", "words", "--at-once", "4", *more]
        self._command += ["--json", "--backend-option", "patience=1", "--backend-option", "rows=8"]
        paths = os.pathsep.join(dict.fromkeys([*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]))
        self._env = {**os.environ, "PYTHONPATH": paths, "RAY_DEDUP_LOGS": "0"}

    def start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self._command, stdout=pipe, stderr=pipe, text=True, env=self._env, start_new_session=True
        )

    def done(self) -> int:
        lines = self.out / "results.jsonl"
        return lines.read_bytes().count(b"\n") if lines.exists() else 0

    def wait_for(self, rows: int, process: subprocess.Popen[str]) -> None:
        until = time.monotonic() + 120
        while self.done() < rows:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)


def finished(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=240)
    return (json.loads(out) if out.strip() else {}), err


def asked(server: CompletionsServer) -> Counter[tuple[int, ...]]:
    """How often each row was scored, without those by which the server is known, which are parts of one text."""
    probe = tuple(tiny.tokenizer()(PROBE)["input_ids"])
    parts = {probe[i:j] for i in range(len(probe)) for j in range(i, len(probe) + 1)}
    found = Counter((*row.prompt, *row.target) for row in server.rows)
    # A row that the server continued, to see if it names what it writes, is a beginning of it and some token.
    return Counter({row: count for row, count in found.items() if row not in parts and row[:-1] not in parts})


def check_nothing_lost_or_twice(server: CompletionsServer, job: Job, in_flight: int) -> None:
    results = dict(ap.load_results(job.out))
    assert len(results) == ROWS and len(job.out.joinpath("results.jsonl").read_bytes().splitlines()) == ROWS
    counts = asked(server)
    again = sum(count - 1 for count in counts.values())
    assert len(counts) == DISTINCT
    # Only what was under way when the process was killed may be asked for again: its answers were never received.
    assert again <= in_flight, f"{again} rows were scored twice"
    print(f"{len(counts)} distinct rows, of which {again} were asked for twice")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_killed_driver_loses_nothing(server: CompletionsServer, folder: Path, tmp_path: Path, engine: str) -> None:
    job = Job(server, tmp_path, folder, "--engine", engine)
    process = job.start()
    job.wait_for(40, process)
    os.killpg(process.pid, signal.SIGKILL) if engine == "local" else process.kill()
    process.wait()
    kept = job.done()
    assert 40 <= kept < ROWS
    time.sleep(2)  # workers of a driver that is gone end by themselves
    before = sum(asked(server).values())
    summary, err = finished(job.start())
    assert summary["done_before"] >= kept and summary["done"] + summary["done_before"] == ROWS, err
    assert sum(asked(server).values()) - before <= (ROWS - kept) * EVALUATIONS
    check_nothing_lost_or_twice(server, job, in_flight=2 * 8 * 8)


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_worker_is_replaced(server: CompletionsServer, folder: Path, tmp_path: Path) -> None:
    job = Job(server, tmp_path, folder, "--engine", "ray")
    process = job.start()
    job.wait_for(40, process)
    listed = subprocess.run(["pgrep", "-g", str(process.pid), "-f", "ray::_Worker"], capture_output=True, text=True)
    workers = (
        listed.stdout.split()
        or subprocess.run(["pgrep", "-f", "ray::_Worker"], capture_output=True, text=True, check=False).stdout.split()
    )
    os.kill(int(workers[0]), signal.SIGKILL)
    summary, err = finished(process)
    assert (summary["done"], summary["failed"]) == (ROWS, 0), err
    check_nothing_lost_or_twice(server, job, in_flight=8 * 8)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_killed_server_ends_the_run_with_one_line(
    server: CompletionsServer, folder: Path, tmp_path: Path, engine: str
) -> None:
    job = Job(server, tmp_path, folder, "--engine", engine)
    process = job.start()
    job.wait_for(40, process)
    server.stop()
    summary, err = finished(process)
    kept = job.done()
    assert process.returncode == 1 and not summary
    assert f"has {kept} of 200 rows, and every score that was answered. Repeat the command to resume it." in err
    assert "Traceback" not in err and err.count("error:") == 1
    server.start()
    summary, err = finished(job.start())
    assert (summary["done_before"], summary["done"]) == (kept, ROWS - kept), err
    check_nothing_lost_or_twice(server, job, in_flight=2 * 8 * 8)


# --- what else could be lost ----------------------------------------------------------------------------------------


def test_a_shard_restarts_and_is_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = written(tmp_path / "rows.jsonl", 6), tmp_path / "out"
    command = ["run", str(data), "-m", str(folder), "--target", TARGET, "--json", "--out", str(out)]
    out.mkdir()
    assert main([*command, "--method", "ablation", "--shard", "1/2"]) == 0
    capsys.readouterr()
    assert main([*command, "--method", "ablation", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3
    assert main([*command, "--method", "ablation"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["done"], summary["done_before"], summary["cached"]) == (3, 3, 3 if summary["cached"] else 0)
    assert main([*command, "--method", "shapley", "--restart"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 6


def test_scores_of_an_unfinished_shard_are_kept(
    server: CompletionsServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = written(tmp_path / "rows.jsonl", 8), tmp_path / "out"
    out.mkdir()
    command = ["run", str(data), "-m", server.address, "--tokenizer", str(folder), "--target", TARGET]
    command += ["--method", "ablation", "--features", "words", "--out", str(out), "--json", "--at-once", "1"]
    assert main([*command, "--shard", "1/2", "--max-requests", "7", "--backend-option", "rows=4"]) == 1
    assert "limit of 7 requests is reached" in capsys.readouterr().err
    known = sum(asked(server).values())
    assert known > 7
    assert main(command) == 0
    counts = asked(server)
    assert max(counts.values()) == 1 and len(counts) == 8 * 6 + 1


def test_other_weights_do_not_continue_a_folder(
    server: CompletionsServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = written(tmp_path / "rows.jsonl", 4), tmp_path / "out"
    out.mkdir()
    command = ["run", str(data), "-m", server.address, "--tokenizer", str(folder), "--target", TARGET]
    command += ["--method", "ablation", "--out", str(out), "--json"]
    assert main([*command, "--shard", "1/2"]) == 0
    server.session = TorchBackend().load(tiny.spec("gpt2"), device=None, dtype=None, memory_budget=None)
    assert main([*command, "--shard", "2/2"]) == 0
    capsys.readouterr()
    assert main(command) == 1
    assert "was started with another model" in capsys.readouterr().err
    one = [*command[:-3], "--out", str(tmp_path / "one"), "--json"]
    assert main([*one, "--max-requests", "7", "--at-once", "1", "--backend-option", "rows=4"]) == 1
    server.session = TorchBackend().load(tiny.spec(), device=None, dtype=None, memory_budget=None)
    capsys.readouterr()
    assert main([*one, "--at-once", "2", "--backend-option", "rows=8"]) == 1
    assert "was started with other weights under the name tiny" in capsys.readouterr().err


def test_limits_are_refused_with_workers(server: CompletionsServer, folder: Path) -> None:
    options = {"max_requests": 100}
    with (
        ap.Explainer(
            server.address, tokenizer=str(folder), backend="openai", backend_options=options, progress=False
        ) as explainer,
        pytest.raises(ap.InputError, match="max_requests= is a limit of one process"),
    ):
        [*explainer.attribute_many(prompts(2), executor=ap.RayExecutor(), target=TARGET)]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "message"), [({"gpus": 1}, "No worker fits: each takes 1 CPUs and 1 GPUs")])
def test_a_worker_without_a_place_is_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with ap.Explainer(folder, progress=False) as explainer:
        with pytest.raises(ap.BackendError, match=message):
            [*explainer.attribute_many(prompts(2), executor=ap.RayExecutor(1, **options), target=TARGET)]
        found = explainer.attribute_many(
            prompts(2), executor=ap.RayExecutor(1, cpus=2.5), target=TARGET, method="ablation"
        )
        assert len([*found]) == 2


def test_a_folder_with_the_name_of_a_shard_is_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = written(tmp_path / "rows.jsonl", 2), tmp_path / "shard-of-glass"
    assert (
        main(["run", str(data), "-m", str(folder), "--target", TARGET, "--method", "ablation", "--out", str(out)]) == 0
    )
    assert (out / "evaluations.sqlite3").exists() and not (tmp_path / "evaluations.sqlite3").exists()

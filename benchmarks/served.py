"""Models behind servers: growth with lanes and workers, and a real engine beside serial requests and Captum.

    make bench-served
    .venv/bin/python -m benchmarks.served --out benchmarks/results --server http://localhost:8000/v1 --model FOLDER

The first table is of a simulated server in a process of its own, which takes a fixed time for each token and computes a
number of requests at once. The second one needs a real server, and the folder of the model that it has.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import apportion as ap
from apportion.protocols.row import Row
from apportion.scoring.batches import Batches
from apportion.testing import tiny

LANES = (1, 2, 4, 8, 16, 32, 64)
SECONDS_PER_TOKEN, TOKENS, SLOTS = 0.005, 100, 64
ROUNDS = 8
REPEATS = 3
PROMPTS = 40
INSTRUCTIONS = "Read the following text with care, and then say in one word what the person in it likes to do. " * 19


@contextmanager
def simulated() -> Iterator[str]:
    """The address of a simulated server in another process."""
    program = (
        "import sys, time\n"
        "from apportion.testing import tiny\n"
        "from apportion.testing.server import CompletionsServer\n"
        f"with CompletionsServer(None, tiny.tokenizer(), seconds_per_token={SECONDS_PER_TOKEN}, slots={SLOTS}) as s:\n"
        "    print(s.address, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()


def growth() -> Iterator[str]:
    """Lines of the table of lanes: requests per second, and the efficiency beside one lane."""
    yield "| lanes | requests | seconds | requests/s | efficiency |"
    yield "|---:|---:|---:|---:|---:|"
    with simulated() as address:
        alone = 0.0
        for lanes in LANES:
            count = ROUNDS * lanes
            rows = [Row((1 + i % 200, *([7] * (TOKENS - 5)), i // 200), (3, 4, 5)) for i in range(count)]
            options = {"rows": 1, "lanes": lanes}
            with ap.Explainer(
                address, tokenizer=tiny.tokenizer(), backend="openai", backend_options=options, progress=False
            ) as explainer:
                score, batches = explainer.session.log_probs, Batches(explainer.session)
                [*batches.run(rows[:lanes], score, print)]  # opens the connections
                started = time.perf_counter()
                scored = sum(len(batch.rows) for batch, *_ in batches.run(rows, score, print))
                seconds = time.perf_counter() - started
            assert scored == count
            rate = count / seconds
            alone = alone or rate
            yield f"| {lanes} | {count} | {seconds:.2f} | {rate:.1f} | {rate / alone / lanes:.0%} |"


def workers() -> Iterator[str]:
    """Lines of the table of workers of Ray: prompts per second once each has opened the model."""
    yield "| workers | prompts | seconds | prompts/s | efficiency |"
    yield "|---:|---:|---:|---:|---:|"
    alone = 0.0
    with ap.Explainer("smollm2", progress=False) as explainer:
        for count in (1, 2):
            prompts = [f"Number {number} of the list is a word that rhymes with" for number in range(PROMPTS * count)]
            ended: list[float] = []
            results = explainer.attribute_many(
                prompts,
                target=" house",
                method="ablation",
                at_once=1,
                executor=ap.RayExecutor(count),
                on_finish=lambda number, outcome, ended=ended: ended.append(time.perf_counter()),  # type: ignore[misc]
            )
            assert all(isinstance(one, ap.Attribution) for one in results)
            # The first prompts of each worker wait for its model.
            seconds = ended[-1] - ended[2 * count - 1]
            rate = (len(ended) - 2 * count) / seconds
            alone = alone or rate
            yield f"| {count} | {len(ended) - 2 * count} | {seconds:.2f} | {rate:.2f} | {rate / alone / count:.0%} |"


class Engine:
    """A real server beside the model here, serial requests and Captum.

    Args:
        server: the server's address.
        model: folder or hub id of the model that it has.
    """

    HEAD = (
        "| run | evaluations | requests | apportion | serial | serial ÷ apportion | Captum: evaluations | Captum "
        "| Captum ÷ apportion | largest difference from torch here |"
    )

    def __init__(self, server: str, model: str) -> None:
        self._server = server
        self._rows: list[Row] = []
        watched = self._rows

        class Watch:
            @ap.hookimpl(wrapper=True)
            def apportion_score(self, batch: ap.ScoringBatch) -> Generator[None, Any, Any]:
                watched.extend(batch.rows)
                return (yield)

        self._there = ap.Explainer(server, tokenizer=model, progress=False)
        self._here = ap.Explainer(model, plugins=[Watch()], progress=False)
        self._http = httpx.Client(timeout=600)

    def line(self, name: str, prompt: ap.Template, target: str, captum: str, **call: Any) -> str:
        """A line of the table; times are medians of runs taken in turn."""
        client = self._there.session.client  # type: ignore[attr-defined]
        self._rows.clear()
        theirs = self._here.attribute(prompt, target, **call)
        rows = list(dict.fromkeys(self._rows))
        before = client.meter.requests
        ours = self._there.attribute(prompt, target, **call)
        requests = client.meter.requests - before
        off = float(np.abs(ours.token_values - theirs.token_values).max())
        counts: list[int] = []
        ways: dict[str, Callable[[], Any]] = {
            "ours": lambda: self._there.attribute(prompt, target, **call),
            "serial": lambda: [self._one(row) for row in rows],
            "captum": lambda: counts.append(self._captum(captum, prompt, target)),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(REPEATS):
            for way, run in ways.items():
                started = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - started)
        median = {way: statistics.median(times) for way, times in seconds.items()}
        return (
            f"| {name} | {len(rows)} | {requests} | {median['ours']:.2f} s | {median['serial']:.2f} s | "
            f"**{median['serial'] / median['ours']:.1f} ×** | {counts[0]} | {median['captum']:.2f} s | "
            f"**{median['captum'] / median['ours']:.1f} ×** | {off:.1e} |"
        )

    def lines(self) -> Iterator[str]:
        """The table."""
        yield self.HEAD
        yield f"|{'---|' * self.HEAD.count(' |')}"
        values = {"name": "Dave", "city": "Palm Coast", "state": "FL", "job": "lawyer", "whose": "His"}
        short = ap.Template(
            "{name} lives in {city}, {state} and is a {job}. {whose} personal interests include", values
        )
        yield self.line("ablation, 5 slots", short, " playing golf", "FeatureAblation", method="ablation")
        yield self.line("exact Shapley, 5 slots", short, " playing golf", "ShapleyValues", method="shapley")
        yield self.line("kernel_shap, 5 slots", short, " playing golf", "KernelShap", method="kernel_shap", budget=28)
        slots = {"who": "Dave", "verb": "plays", "what": "golf", "when": "on Sundays"}
        long = ap.Template(f"{INSTRUCTIONS}{{who}} {{verb}} {{what}} {{when}}. His hobby is", slots)
        yield self.line("ablation, 4 slots after 400 tokens", long, " golf", "FeatureAblation", method="ablation")
        yield self.line("exact Shapley, 4 slots after 400 tokens", long, " golf", "ShapleyValues", method="shapley")

    def _one(self, row: Row) -> None:
        """One prompt in a request, as Captum's provider sends it, over a connection that stays open."""
        content = {
            "model": self._there.session.info.model,
            "prompt": [*row.prompt, *row.target],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        self._http.post(f"{self._server}/completions", json=content).raise_for_status()

    def _captum(self, method: str, prompt: Any, target: str) -> int:
        """Captum's own class for remote models; returns the number of its requests."""
        import captum.attr as lib

        counted: list[None] = []

        class Provider(lib.VLLMProvider):  # type: ignore[misc]
            def get_logprobs(self, *args: Any, **kwargs: Any) -> Any:
                counted.append(None)
                return super().get_logprobs(*args, **kwargs)

        remote = lib.RemoteLLMAttribution(
            getattr(lib, method)(lib.RemoteLLMAttribution.placeholder_model),
            self._here.session.tokenizer,
            Provider(self._server),
        )
        given = lib.TextTemplateInput(prompt.template, dict(prompt.values), dict.fromkeys(prompt.values, ""))
        remote.attribute(given, target=target)
        return len(counted)


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for served.md")
    parser.add_argument("--server", help="address of a real server, such as http://localhost:8000/v1")
    parser.add_argument("--model", default="smollm2", help="folder or hub id of the model that it has")
    parser.add_argument("--engine", default="", help="name and version of the server, for the table")
    given = parser.parse_args()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("apportion", "captum", "torch", "httpx"))
    lines = [
        "# Served models",
        "",
        f"`python -m benchmarks.served`: {versions}; Python {platform.python_version()}. GPU: not measured.",
        "",
        f"A simulated server that takes {1000 * SECONDS_PER_TOKEN:g} ms for each token of a request, and computes "
        f"{SLOTS} requests at once; {ROUNDS} requests of {TOKENS + 2} tokens for each lane.",
        "",
    ]
    print("\n".join(lines))
    for line in growth():
        lines.append(line)
        print(line, flush=True)
    about = (
        "Workers of Ray on 2 cores, one core for each: ablation of the words of short prompts with SmolLM2-135M and "
        "the backend `torch`, without a server."
    )
    lines += ["", about, ""]
    print(f"\n{about}\n")
    for line in workers():
        lines.append(line)
        print(line, flush=True)
    if given.server is not None:
        about = (
            f"A real server ({given.engine or given.server}) on the same machine, medians of {REPEATS} runs taken in "
            "turn. Serial: the same prompts, one in a request. Captum: its own `RemoteLLMAttribution` with "
            "`VLLMProvider`."
        )
        lines += ["", about, ""]
        print(f"\n{about}\n")
        for line in Engine(given.server, given.model).lines():
            lines.append(line)
            print(line, flush=True)
    if given.out is not None:
        (given.out / "served.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

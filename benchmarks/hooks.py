"""Overhead of five observer plugins: whole runs with and without them, and the time spent in hooks.

    .venv/bin/python benchmarks/hooks.py --repeats 9 --out benchmarks/results

Whole runs differ by less than the machine's noise. Therefore the time spent in hooks is measured, too. On a session
that returns immediately, the same runs consist of little but the pipeline and its hooks. The difference between five
observers and none is divided by the time of the real run.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import apportion as ap
from apportion_backends.torch.backend import TorchBackend
from apportion_backends.torch.session import TorchSession

PROMPT = "Dave lives in Palm Coast, FL and is a lawyer. His personal interests include"
TARGET = " playing golf, hiking, and cooking."
CASES = {
    "ablation, 17 tokens": {"prompt": ap.Text(PROMPT, by="tokens"), "method": "ablation"},
    "exact Shapley, 7 words": {"prompt": ap.Text("Dave is a lawyer in Palm Coast"), "method": "shapley"},
}
OBSERVERS = 5


class Observer:
    """Implements every hook of a run: before, lookup, a scoring wrapper, progress, after."""

    def __init__(self) -> None:
        self.seen = 0

    @ap.hookimpl
    def apportion_before_run(self, request: ap.Request) -> None:
        self.seen += 1

    @ap.hookimpl
    def apportion_lookup(self, request: ap.Request, rows: Any) -> None:
        self.seen += len(prompts)

    @ap.hookimpl(wrapper=True)
    def apportion_score(self, session: ap.Session, batch: ap.ScoringBatch, request: ap.Request) -> Any:
        self.seen += batch.n_rows
        return (yield)

    @ap.hookimpl
    def apportion_on_progress(self, event: ap.ProgressEvent) -> None:
        self.seen += event.done

    @ap.hookimpl
    def apportion_after_run(self, request: ap.Request, attribution: ap.Attribution) -> None:
        self.seen += 1


class AtOnce(TorchBackend):
    """The torch backend with sessions that return immediately, without running the model."""

    def load(self, *args: Any, **options: Any) -> TorchSession:
        class Session(TorchSession):
            def log_probs(self, batch: ap.ScoringBatch) -> torch.Tensor:
                return torch.zeros(batch.n_rows, batch.n_targets)

        session = super().load(*args, **options)
        session.__class__ = Session
        return session


def explainers(backend: object) -> tuple[ap.Explainer, ap.Explainer]:
    """Explainers without and with five observers; of distinct classes, because plugins are identified by name."""
    session = ap.Explainer("smollm2", progress=False).session
    model = session.model, session.tokenizer  # type: ignore[attr-defined]
    observers = [type(f"Observer{i}", (Observer,), {})() for i in range(OBSERVERS)]
    return (
        ap.Explainer(model, backend=backend, progress=False),
        ap.Explainer(model, backend=backend, progress=False, plugins=observers),
    )


def medians(pair: tuple[ap.Explainer, ap.Explainer], case: dict[str, Any], repeats: int) -> list[float]:
    """Median seconds without and with observers, alternating runs."""
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for explainer, found in zip(pair, seconds, strict=True):
            start = time.perf_counter()
            explainer.attribute(target=TARGET, **case)
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in seconds]


def main() -> None:
    """Measure, print the page, and save it if ``--out`` is given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="folder for hooks.md")
    arguments = parser.parse_args()
    real, instant = explainers("torch"), explainers(AtOnce())
    lines = ["| run | without | with five observers | difference | time in hooks | share of the run |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for name, case in CASES.items():
        for pair in (real, instant):
            for explainer in pair:
                explainer.attribute(target=TARGET, **case)  # warm up
        plain, observed = medians(real, case, arguments.repeats)
        base, hooked = medians(instant, case, 20 * arguments.repeats)
        own = hooked - base
        lines.append(
            f"| {name} | {plain:.3f} s | {observed:.3f} s | {observed / plain - 1:+.2%} | {own * 1e3:.2f} ms | "
            f"{own / plain:.3%} |"
        )
    packages = ", ".join(f"{p} {metadata.version(p)}" for p in ("apportion", "torch", "transformers", "pluggy"))
    page = "\n".join(
        [
            "# Overhead of hooks\n",
            f"SmolLM2-135M, fp32, {torch.get_num_threads()} threads, {platform.machine()}, Python "
            f"{platform.python_version()}, {packages}. Medians of {arguments.repeats} alternating runs. The "
            f"time in hooks is from {20 * arguments.repeats} runs on a session that returns immediately. Each of the "
            "five observers implements all hooks of a run.\n",
            *lines,
        ]
    )
    print(page)
    if arguments.out:
        (arguments.out / "hooks.md").write_text(page + "\n")


if __name__ == "__main__":
    main()

"""ONNX Runtime beside PyTorch: times, start, memory, and the fidelity of lower precision, on SmolLM2 in one run.

    make bench-onnx
    .venv/bin/python -m benchmarks.onnx_runtime --out benchmarks/results

The exports are made first, into the cache, and are not timed. Runs of all sessions take turns. Fidelity compares the
effect of removing each word of 40 prompts with PyTorch in fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("torch fp32", "torch bf16", "onnxruntime fp32", "onnxruntime int8")
ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "torch fp32": {"backend": "torch"},
    "torch bf16": {"backend": "torch", "dtype": "bfloat16"},
    "onnxruntime fp32": {"backend": "onnxruntime"},
    "onnxruntime int8": {"backend": "onnxruntime", "backend_options": {"precision": "int8"}},
}
CASES = ("ablation", "shapley", "few_shot", "kernel_shap")
AIMS = {"onnxruntime fp32": 1.1, "onnxruntime int8": 1.5}
START, MEMORY = 1.5, 1.3
"""Aims: seconds until a session is open, and its peak memory in sizes of the weights."""


def opened(name: str) -> Any:
    """An explainer of SmolLM2."""
    import apportion as ap

    return ap.Explainer("smollm2", progress=False, **ARGUMENTS[name])


def timed(explainers: Mapping[str, Any], case: str, seconds: float) -> dict[str, tuple[float, float]]:
    """Median wall-clock and CPU time of each, taking turns after one run that warms up."""
    from apportion.benchmarking.works import work

    chosen = work(case)
    for explainer in explainers.values():
        chosen.run(explainer)
    wall: dict[str, list[float]] = {name: [] for name in explainers}
    cpu: dict[str, list[float]] = {name: [] for name in explainers}
    begun = time.perf_counter()
    while len(wall[NAMES[0]]) < 3 or (time.perf_counter() - begun < seconds and len(wall[NAMES[0]]) < 15):
        for name, explainer in explainers.items():
            started, used = time.perf_counter(), time.process_time()
            chosen.run(explainer)
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - used)
    return {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in explainers}


def fidelity(explainers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Agreement with PyTorch in fp32: rank correlation, same three strongest words, largest difference in nats."""
    from scipy.stats import spearmanr

    from apportion_backends.onnxruntime.export.prompts import PROMPTS

    found: dict[str, list[tuple[float, bool, float]]] = {name: [] for name in explainers}
    for text, target in PROMPTS:
        results = {name: one.attribute(text, target, method="ablation") for name, one in explainers.items()}
        expected = results[NAMES[0]]
        for name, result in results.items():
            rank = float(spearmanr(result.values, expected.values).statistic)
            same = top(result.values) == top(expected.values)
            found[name].append((rank, same, abs(result.full_value - expected.full_value)))
    return {
        name: {
            "mean": statistics.mean(rank for rank, *_ in rows),
            "least": min(rank for rank, *_ in rows),
            "top": statistics.mean(same for _, same, _ in rows),
            "nats": max(error for *_, error in rows),
        }
        for name, rows in found.items()
    }


def top(values: np.ndarray) -> set[int]:
    """The three strongest features."""
    return set(np.argsort(-np.abs(values), kind="stable")[:3].tolist())


def peak_mib() -> float:
    """Most memory that this process has had, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def start(name: str) -> dict[str, float]:
    """Seconds from imports to an open session and to the first result, and peak memory, in this process."""
    # Everything that any session needs is imported before the clock starts.
    from transformers import PreTrainedTokenizerFast  # noqa: F401

    import apportion as ap
    from apportion.explainer import Explainer  # noqa: F401

    before, begun = peak_mib(), time.perf_counter()
    explainer = opened(name)
    ready, held = time.perf_counter() - begun, peak_mib() - before
    explainer.attribute(ap.Text("Dave is a lawyer from Palm Coast."), " Yes", method="ablation")
    weights = explainer.session.info.weights_bytes / 2**20
    return {"open": ready, "first": time.perf_counter() - begun, "peak": held, "weights": weights}


def started(name: str, repeats: int = 3) -> dict[str, float]:
    """Medians of fresh processes."""
    command = [sys.executable, "-m", "benchmarks.onnx_runtime", "--start", name]
    runs = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(repeats)
    ]
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def page(times: Mapping[str, Any], starts: Mapping[str, Any], agreement: Mapping[str, Any], threads: int) -> str:
    """The report in Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "onnxruntime"))
    header = " | ".join(NAMES)
    rows = []
    for case, found in times.items():
        base = found[NAMES[0]]
        cells = [f"{found[name][0]:.2f} s" for name in NAMES[:1]]
        cells += [
            f"{found[n][0]:.2f} s, {base[0] / found[n][0]:.2f} × ({base[1] / found[n][1]:.2f})" for n in NAMES[1:]
        ]
        rows.append(f"| {case} | {' | '.join(cells)} |")
    ratios = {n: statistics.median(one[NAMES[0]][0] / one[n][0] for one in times.values()) for n in AIMS}
    medians = "; ".join(f"{n} {ratios[n]:.2f} × (aim {AIMS[n]})" for n in AIMS)
    table = [
        f"| {n} | {starts[n]['open']:.2f} s | {starts[n]['first']:.2f} s | {starts[n]['peak']:.0f} MiB | "
        f"{starts[n]['peak'] / starts[n]['weights']:.2f} × {starts[n]['weights']:.0f} MiB | "
        f"{agreement[n]['mean']:.4f} | {agreement[n]['least']:.3f} | {agreement[n]['top']:.1%} | "
        f"{agreement[n]['nats']:.1e} |"
        for n in NAMES
    ]
    return "\n".join(
        [
            "# ONNX Runtime beside PyTorch",
            "",
            f"Measured by `make bench-onnx` on {platform.machine()}, {threads} threads, {versions}; SmolLM2-135M. "
            "Medians of runs that took turns; in brackets, the ratio of CPU times.",
            "",
            f"| case | {header} |",
            "|---|" + "---:|" * len(NAMES),
            *rows,
            "",
            f"Median over cases: {medians}.",
            "",
            "Start and memory are those of a fresh process after its imports, with the exports in the cache (aims for "
            f"onnxruntime: {START} s and {MEMORY} × the weights). Fidelity is that of the effect of each word in 40 "
            "prompts, beside torch in fp32: rank correlation (mean, least), the same three strongest words, and the "
            "largest difference of a target's log-probability.",
            "",
            "| session | open | first result | peak memory | of the weights | Spearman | least | same top 3 | nats |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
            *table,
            "",
        ]
    )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_runtime", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for onnx.md (default: print only)")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each case")
    parser.add_argument("--start", choices=NAMES, help="measure the start of this session in this process")
    arguments = parser.parse_args()
    if arguments.start is not None:
        print(json.dumps(start(arguments.start)))
        return
    threads = len(os.sched_getaffinity(0))
    explainers = {name: opened(name) for name in NAMES}
    starts = {name: started(name) for name in NAMES}
    times = {case: timed(explainers, case, arguments.seconds) for case in CASES}
    report = page(times, starts, fidelity(explainers), threads)
    print(report)
    if arguments.out is not None:
        (arguments.out / "onnx.md").write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Gradient methods beside Inseq and Captum: times, forward and backward passes, and memory of a long prompt.

    make bench-gradients
    .venv/bin/python -m benchmarks.gradients --out benchmarks/results

All tools explain the same target of SmolLM2 in one run. Values are compared before anything is timed, where definitions
agree: Inseq replaces the target's earlier tokens by the baseline too, so of its integrated gradients only those of the
first target token are ours.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from benchmarks.speed.memory import Peak, peak_of
from benchmarks.speed.peer import Peer
from benchmarks.speed.peers import captum, inseq

import apportion as ap
from apportion.benchmarking import texts
from apportion.errors import counted

STEPS = 20
LONG, BUDGET = 1000, 512 * 2**20
"""Tokens of the long prompt, and the memory budget, which is the default on a CPU."""
PATH: Mapping[str, object] = {"method": "integrated_gradients", "steps": STEPS, "baseline": 0, "whole_prompt": True}


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes:
        name: what is computed.
        arguments: arguments of ``attribute``.
        peers: the same work with peers.
        alike: rows of our values of tokens that peers must agree with, by peer; all of them if it is missing.
        aims: ratio to a peer that is aimed at.
    """

    name: str
    arguments: Mapping[str, object]
    peers: Mapping[str, Peer]
    alike: Mapping[str, int] = field(default_factory=dict)
    aims: Mapping[str, float] = field(default_factory=dict)


TEXT, TARGET = texts.SENTENCE, texts.TARGET
CAPTUM = {"Captum LLMGradientAttribution": captum.integrated_gradients(TEXT, TARGET, STEPS)}
INSEQ = {
    "Inseq integrated_gradients": inseq.gradients(
        "integrated_gradients", TEXT, TARGET, lambda scores: scores.sum(-1), n_steps=STEPS
    )
}
SALIENCY = {"Inseq saliency": inseq.gradients("saliency", TEXT, TARGET, lambda scores: scores.norm(dim=-1))}
CASES = (
    Case(f"integrated gradients, {STEPS} steps, each target token", PATH, CAPTUM, aims=dict.fromkeys(CAPTUM, 5.0)),
    Case(
        f"integrated gradients, {STEPS} steps, each target token, of probabilities",
        {**PATH, "target_fn": "prob"},
        INSEQ,
        alike=dict.fromkeys(INSEQ, 1),
        aims=dict.fromkeys(INSEQ, 6.0),
    ),
    Case(
        f"integrated gradients, {STEPS} steps, whole target",
        {**PATH, "per_token": False},
        CAPTUM | INSEQ,
        aims=dict.fromkeys(CAPTUM, 5.0) | dict.fromkeys(INSEQ, 6.0),
    ),
    Case(
        "saliency, each target token",
        {"method": "saliency", "target_fn": "prob"},
        SALIENCY,
        aims=dict.fromkeys(SALIENCY, 3.0),
    ),
    Case(
        "saliency, whole target",
        {"method": "saliency", "target_fn": "prob", "per_token": False},
        SALIENCY,
        aims=dict.fromkeys(SALIENCY, 3.0),
    ),
)


def timed(run: Callable[[], object], seconds: float, least: int = 2) -> list[float]:
    """Durations of some runs, after one that warms up."""
    run()
    found: list[float] = []
    while len(found) < least or (sum(found) < seconds and len(found) < 9):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return found


def compared(case: Case, explainer: ap.Explainer) -> list[str]:
    """Rows of the table: ours first. Ours is timed before and after the peers."""
    prompt = ap.Text(TEXT, by="tokens")

    def run() -> ap.Attribution:
        return explainer.attribute(prompt, TARGET, **case.arguments)

    result, seconds = run(), timed(run, 10.0)
    rows, theirs = [], []
    for who, peer in case.peers.items():
        if peer.version is None:
            rows.append(f"| {case.name} | {who} | not installed | | |")
            continue
        work = peer.prepare(explainer.session)
        off = _difference(case, who, result, work())
        theirs.append((who, peer, timed(work, 20.0, least=1), off))
    seconds += timed(run, 10.0)
    ours = statistics.median(seconds)
    cost = result.provenance
    outputs = 1 + len(result.target_tokens) if result.has_token_values else 1
    first = f"| {case.name} | apportion | {ours:.2f} s | | "
    first += f"{counted(cost.evaluations, 'row')}, {counted(outputs, 'output')} |"
    for who, peer, times, off in theirs:
        ratio = statistics.median(times) / ours
        aim = f" (aim {case.aims[who]:g})" if who in case.aims else ""
        rows.append(f"| | {who} {peer.version} | {statistics.median(times):.2f} s | {ratio:.1f} ×{aim} | {off} |")
    return [first, *rows]


def _difference(case: Case, who: str, result: ap.Attribution, values: np.ndarray) -> str:
    """The largest difference from a peer's values relative to the largest of them, where they should agree.

    Raises:
        SystemExit: they differ by more than 0.01 %.
    """
    if not result.has_token_values:
        return ""
    rows = case.alike.get(who, len(values))
    expected = values[:rows]
    off = float(np.abs(np.asarray(result.token_values)[:rows] - expected).max() / np.abs(expected).max())
    if not off <= 1e-4:
        raise SystemExit(f"{who} differs by {off:.3g} of its largest value in {case.name!r}.")
    which = "" if rows == len(values) else "first token: "
    return f"{which}differs by {off:.0e}"


def long_prompt(per_token: bool) -> Peak:
    """Peak memory of integrated gradients of a long prompt, in this process."""
    explainer = ap.Explainer("smollm2", progress=False, memory_budget=BUDGET)
    prompt = ap.Text(" word" * LONG, by="tokens")
    return peak_of(
        lambda: explainer.attribute(
            prompt, " golf", method="integrated_gradients", steps=3, baseline="mean", per_token=per_token
        )
    )


def page(rows: list[str], peak: Peak) -> str:
    """The report in Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    return "\n".join(
        [
            "# Gradient methods beside Inseq and Captum",
            "",
            f"Measured by `make bench-gradients` on {platform.machine()}, {torch.get_num_threads()} threads, "
            f"{versions}; SmolLM2-135M in fp32. Medians of one run; ours before and after the peers.",
            "",
            f"The prompt has 17 tokens, the target {TARGET!r} 8.",
            "",
            "| work | tool | time | ratio | details |",
            "|---|---|---:|---:|---|",
            *rows,
            "",
            "**Bound of the ratio.** A peer makes a forward and a backward pass for each target token; apportion makes "
            "one forward pass for all tokens, and a backward pass for each. With T tokens, and a backward pass that "
            "takes as long as a forward pass, that is 2T : (1 + T), less than 2, whatever the program does. If only "
            "the whole target is scored (`per_token=False`), it is 2T : 2 = T. The peers have no such mode. What goes "
            "beyond is overhead of the peers, such as logits of the whole vocabulary at every position.",
            "",
            f"**Memory.** Integrated gradients of {LONG:,} tokens with a memory budget of {BUDGET // 2**20} MiB took "
            f"{peak.beyond / 2**20:.0f} MiB beyond the loaded model.",
            "",
        ]
    )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradients", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for gradients.md (default: print only)")
    parser.add_argument("--peak", action="store_true", help="measure the memory of the long prompt in this process")
    arguments = parser.parse_args()
    if arguments.peak:
        peak = long_prompt(per_token=False)
        print(json.dumps([peak.loaded, peak.beyond]))
        return
    with ap.Explainer("smollm2", progress=False) as explainer:
        rows = [row for case in CASES for row in compared(case, explainer)]
    command = [sys.executable, "-m", "benchmarks.gradients", "--peak"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    text = page(rows, Peak(*json.loads(done.stdout.splitlines()[-1])))
    print(text)
    if arguments.out:
        (arguments.out / "gradients.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

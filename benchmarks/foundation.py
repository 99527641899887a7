"""apportion beside Captum: the same model, prompt and target, in one run; values are checked first.

    make bench                                   # both cases, about five minutes on 2 cores
    .venv/bin/python benchmarks/foundation.py --repeats 5 --out benchmarks/results

Captum is timed on its correct path (``forward_in_tokens=False``) and, apart, on its default path, which
feeds the sequence again on top of its cache and is wrong for targets of two or more tokens with
transformers 5. Captum's slow cases run once; ours run ``--repeats`` times and the median is reported.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

import apportion as ap

PROMPT = "Dave lives in Palm Coast, FL and is a lawyer. His personal interests include"
TARGET = " playing golf, hiking, and cooking."
TEMPLATE = "{name} lives in {city}, {state} and is a {job}. {pronoun} personal interests include"
VALUES = {"name": "Dave", "city": "Palm Coast", "state": "FL", "job": "lawyer", "pronoun": "His"}
BASELINES = {"name": "Sarah", "city": "Seattle", "state": "WA", "job": "doctor", "pronoun": "Her"}


@dataclass
class Row:
    """One line of the table."""

    work: str
    who: str
    seconds: list[float]
    evaluations: str
    difference: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed(work: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, list[float]]:
    """The values, and the seconds of each repeat."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        values = work()
        seconds.append(time.perf_counter() - start)
    return values, seconds


def captum_cases(explainer: ap.Explainer) -> dict[str, tuple[str, Callable[[bool], np.ndarray]]]:
    """Captum's call for each case; the argument chooses its correct or its default path."""
    from captum.attr import FeatureAblation, LLMAttribution, ShapleyValues, TextTemplateInput, TextTokenInput

    model, tokenizer = explainer.model.model, explainer.model.tokenizer

    def attribute(method: object, inputs: object, default_path: bool) -> np.ndarray:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            options = {} if default_path else {"forward_in_tokens": False}
            result = LLMAttribution(method, tokenizer).attribute(inputs, target=TARGET, **options)
        return result.seq_attr.double().numpy()

    tokens = TextTokenInput(PROMPT, tokenizer)
    slots = TextTemplateInput(TEMPLATE, VALUES, BASELINES)
    return {
        "ablation, 17 tokens": ("18", lambda default: attribute(FeatureAblation(model), tokens, default)),
        "exact Shapley, 5 slots": ("601", lambda default: attribute(ShapleyValues(model), slots, default)),
    }


def our_cases(explainer: ap.Explainer) -> dict[str, Callable[[], ap.Attribution]]:
    """The same work here."""
    tokens = ap.Text(PROMPT, by="tokens", baseline=0)
    slots = ap.Template(TEMPLATE, VALUES, BASELINES)
    return {
        "ablation, 17 tokens": lambda: explainer.attribute(tokens, TARGET, method="ablation"),
        "exact Shapley, 5 slots": lambda: explainer.attribute(slots, TARGET, method="shapley"),
    }


def compare(explainer: ap.Explainer, repeats: int, default_path: bool) -> list[Row]:
    """All rows; values of the correct path must agree."""
    rows = []
    theirs = captum_cases(explainer)
    for work, ours in our_cases(explainer).items():
        ours()  # the first run of a process pays for memory and threads
        result = ours()
        values, seconds = timed(lambda run=ours: run().values, repeats)
        rows.append(Row(work, "apportion", seconds, str(result.provenance.evaluations)))
        evaluations, captum = theirs[work]
        print(f"{work}: apportion {rows[-1].median:.2f} s; Captum …", file=sys.stderr)
        correct, seconds = timed(lambda run=captum: run(False), 1 if evaluations == "601" else min(3, repeats))
        rows.append(Row(work, "Captum, correct path", seconds, evaluations, float(abs(correct - values).max())))
        if rows[-1].difference is None or rows[-1].difference > 1e-3:
            raise SystemExit(f"{work}: the values differ by {rows[-1].difference}; no time is worth reporting")
        if default_path and evaluations != "601":
            wrong, seconds = timed(lambda run=captum: run(True), 1)
            rows.append(Row(work, "Captum, default path", seconds, evaluations, float(abs(wrong - values).max())))
    return rows


def gemm_rate() -> float:
    """fp32 FLOP/s of the best matrix product of a model's size in five tries."""
    best = 0.0
    for rows, inner, columns in ((432, 576, 1536), (768, 576, 1536), (1024, 1024, 1024)):
        a, b = torch.randn(rows, inner), torch.randn(inner, columns)
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(20):
                a @ b
            best = max(best, 20 * 2 * rows * inner * columns / (time.perf_counter() - start))
    return best


def floor_lines(explainer: ap.Explainer, rows: list[Row]) -> str:
    """What the arithmetic alone takes at the measured rate, for the tokens that were forwarded."""
    rate = gemm_rate()
    model = explainer.model.model
    head = model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.parameters()) - head  # the embedding is tied to the head
    lines = [f"fp32 matrix products ran at {rate / 1e9:.0f} GFLOP/s in this run. At that rate:"]
    theirs = {row.work: row.median for row in rows if row.who == "Captum, correct path"}
    for work, ours in our_cases(explainer).items():
        result = ours()
        targets = result.provenance.evaluations * len(result.target_tokens)
        seconds = (2 * body * result.provenance.forwarded_tokens + 2 * head * targets) / rate
        median = next(row.median for row in rows if row.work == work and row.who == "apportion")
        lines.append(
            f"- {work}: {result.provenance.forwarded_tokens} forwarded tokens take {seconds:.2f} s, "
            f"{seconds / median:.0%} of our time; at 100 % the ratio to Captum's correct path would be "
            f"{theirs[work] / seconds:.1f}."
        )
    return "\n".join([lines[0], "", *lines[1:]])


def startup() -> list[tuple[str, float]]:
    """Medians of five starts."""
    found = []
    scripts = Path(sys.executable).parent
    for name, command in (
        ("import apportion", [sys.executable, "-c", "import apportion"]),
        ("python -c pass", [sys.executable, "-c", "pass"]),
        ("apportion --help", [str(scripts / "apportion"), "--help"]),
    ):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        found.append((name, statistics.median(seconds)))
    return found


MEMORY_PROGRAM = """
import resource, torch
import apportion as ap
explainer = ap.Explainer("smollm2")
tokenizer = explainer.model.tokenizer
# The model's pages are read and one row is scored before the measurement begins.
explainer.attribute("warm up", " now", method="ablation")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
draw = torch.Generator().manual_seed(0)
ids = torch.randint(1000, 40000, (64,), generator=draw).tolist()
class Adapter:
    features = tuple(ap.Feature(str(i), str(i)) for i in range(11))
    def render(self, mask):
        return [ap.ModelInput(tuple(i if j >= 11 or on[j] else 0 for j, i in enumerate(ids))) for on in mask.tolist()]
class Plugin:
    @ap.hookimpl
    def apportion_adapt_input(self, prompt, context):
        return Adapter() if prompt == 2000 else None
class Table:
    estimand, requires = "none", frozenset()
    def run(self, game, *, budget, rng):
        numbers = torch.arange(2000)
        values = game.values((numbers[:, None] >> torch.arange(11)) & 1 == 1)
        return ap.Estimate(values[:11])
big = ap.Explainer((explainer.model.model, tokenizer), plugins=[Plugin()], progress=False)
result = big.attribute(2000, " playing golf, hiking, and cooking.", method=Table())
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(result.provenance.evaluations, before, after, result.provenance.seconds)
"""


def memory() -> str:
    """Peak memory of scoring 2,000 rows of 64 tokens, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEMORY_PROGRAM], check=True, capture_output=True, text=True)
    evaluations, before, after, seconds = done.stdout.split()
    return (
        f"{evaluations} rows of 64 tokens and 8 target tokens: {int(before) / 2**20:.2f} GiB with the model loaded, "
        f"{int(after) / 2**20:.2f} GiB at the peak of the process (loading included); "
        f"{float(evaluations) / float(seconds):.1f} rows/s."
    )


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| work | who | median s | runs | evaluations | largest difference from apportion | × apportion |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    ours = {row.work: row.median for row in rows if row.who == "apportion"}
    for row in rows:
        difference = "" if row.difference is None else f"{row.difference:.1e}"
        ratio = f"{row.median / ours[row.work]:.1f}"
        cells = (row.work, row.who, f"{row.median:.2f}", str(len(row.seconds)), row.evaluations, difference, ratio)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(rows: list[Row], floor: str, starts: list[tuple[str, float]], peak: str | None) -> str:
    """The whole page."""
    packages = ", ".join(f"{p} {metadata.version(p)}" for p in ("apportion", "torch", "transformers", "captum"))
    parts = [
        "# Foundation benchmark",
        f"SmolLM2-135M, fp32, {torch.get_num_threads()} threads, {platform.machine()}, Python "
        f"{platform.python_version()}, {packages}. One run of `make bench`; medians.",
        table(rows),
        "Captum's default path is wrong with transformers 5 (see the largest difference), so its time is shown apart.",
        floor,
        "| start | median s |\n|---|---:|\n" + "\n".join(f"| `{name}` | {s:.2f} |" for name, s in starts),
    ]
    if peak:
        parts.append("Memory: " + peak)
    parts.append("GPU: not measured.")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-default-path", action="store_true", help="leave out Captum's wrong default path")
    parser.add_argument("--no-memory", action="store_true", help="leave out the 2,000 rows of the memory measurement")
    parser.add_argument("--out", type=Path, help="folder for foundation.md")
    arguments = parser.parse_args()
    explainer = ap.Explainer("smollm2", progress=False)
    rows = compare(explainer, arguments.repeats, not arguments.no_default_path)
    page = report(rows, floor_lines(explainer, rows), startup(), None if arguments.no_memory else memory())
    print(page)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "foundation.md").write_text(page)


if __name__ == "__main__":
    main()

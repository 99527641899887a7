"""The report page and the table in the README, from the measurements."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from benchmarks.speed.comparing import Compared, Contender
from benchmarks.speed.growth import Curve, quickest, slope
from benchmarks.speed.memory import Peak

__all__ = ["Findings", "page", "readme_table", "refresh_readme"]

BEGIN = "<!-- speed: written by `make bench` -->"
END = "<!-- end of speed -->"
PACKAGES = ("apportion", "torch", "transformers", "captum", "inseq", "shap", "context-cite")

FLOOR = """**The floor** is a lower bound on the time: that of a program which reads every distinct prefix of the
prompts once and does nothing but multiply matrices. It counts 2 operations for each weight of the layers (without
embeddings and output layer) and each node of the prefix tree of prompts and target; 2 for each weight of the output
layer, each prompt and each target token; and in each layer 4 for each channel of its heads and each pair of a token
and a token that it attends to. The sum is divided by the rate of fp32 matrix products.

That rate is the median over five shapes, from 512 × 576 × 1536 to 2048 × 2048 × 2048, of the best of five tries
each. It is measured before and after our runs, and the higher value counts. It is measured twice: with ``torch.mm``
and with oneDNN, which our linear layers use. Separate code builds the tree, not the planner. The share of the floor
is the floor divided by our median time; the last column uses the faster of the two rates."""


@dataclass(frozen=True)
class Findings:
    """All measurements of one run.

    Attributes:
        compared: the cases.
        curves: growth curves; empty if skipped.
        starts: start-up times of new processes; empty if skipped.
        many_rows: memory of 2,048 evaluations; ``None`` if skipped.
        command: the command that was run.
    """

    compared: Sequence[Compared]
    curves: Sequence[Curve] = ()
    starts: Mapping[str, float] | None = None
    many_rows: Peak | None = None
    command: str = "make bench"


def page(found: Findings) -> str:
    """Render the page in Markdown."""
    parts = [
        "# Speed",
        _where(found.command),
        "A peer is timed only if its values agree with ours, where they should. Times are medians, with the shortest "
        "and longest run in brackets. The first run does not count, unless a peer takes so long that it is the only "
        "one. apportion is timed before and after the peers. Rows (sequences) and tokens are counted where they enter "
        "the model's first layer, including padding; a prefix that is encoded once for many rows counts as one more "
        "row.",
        "![Shares of the floor, and ratios to peers](speed.png)",
        _contenders(found.compared),
        *_notes(found.compared),
        "## The share of the floor",
        FLOOR,
        _floors(found.compared),
        *_growth(found.curves),
        *_memory(found),
        *_starts(found.starts),
        "GPU: not measured.",
    ]
    return "\n\n".join(parts) + "\n"


def _where(command: str) -> str:
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return (
        f"SmolLM2-135M-Instruct, fp32, {torch.get_num_threads()} threads on {os.cpu_count()} cores, "
        f"{platform.machine()}, Python {platform.python_version()}, {', '.join(versions)}. One run of `{command}`."
    )


def _contenders(compared: Iterable[Compared]) -> str:
    lines = [
        "| work | who | seconds | runs | × apportion | rows | tokens | difference | memory |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in compared:
        for each in case.contenders:
            name = case.ours.summary if each is case.contenders[0] else ""
            lines.append(f"| {' | '.join((name, *_cells(each, case.contenders[0])))} |")
    return "\n".join(lines)


def _cells(each: Contender, ours: Contender) -> tuple[str, ...]:
    if not each.seconds:
        return (each.who, each.note, "", "", "", "", "", "")
    spread = f"{each.median:.2f} ({min(each.seconds):.2f}–{max(each.seconds):.2f})"
    difference = "" if each.difference is None else f"{each.difference:.0e}"
    return (
        each.who,
        spread if len(each.seconds) > 1 else f"{each.median:.2f}",
        str(len(each.seconds)),
        "" if each is ours else _ratio(each.median / ours.median),
        f"{each.read.rows:,}",
        f"{each.read.tokens:,}",
        difference,
        "" if each.peak is None else f"{each.peak.beyond / 2**20:,.0f} MiB",
    )


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _notes(compared: Iterable[Compared]) -> list[str]:
    notes = {f"{c.who}: {c.note}." for case in compared for c in case.contenders if c.seconds and c.note}
    aims = []
    for case in compared:
        ours = case.contenders[0]
        for each in case.contenders[1:]:
            if each.who in case.aim and each.seconds:
                aims.append(
                    f"| {case.ours.summary} | {each.who} | {case.aim[each.who]:g} | "
                    f"{_ratio(each.median / ours.median)} |"
                )
    found = ["\n".join(f"- {note}" for note in sorted(notes))] if notes else []
    if aims:
        found.append("\n".join(["| work | peer | target ratio | measured ratio |", "|---|---|---:|---:|", *aims]))
    return found


def _floors(compared: Iterable[Compared]) -> str:
    lines = [
        "| work | evaluations | tokens read | least | GFLOP | GFLOP/s | by oneDNN | floor | median "
        "| share of the floor | at the faster rate |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in compared:
        o = case.ours
        cells = (
            o.summary, f"{o.evaluations:,}", f"{o.forwarded_tokens:,}", f"{o.least_tokens:,}",
            f"{o.least_flops / 1e9:,.0f}", f"{o.gemm_rate / 1e9:,.0f}",
            "" if o.onednn_rate is None else f"{o.onednn_rate / 1e9:,.0f}", f"{o.floor_seconds:.2f} s",
            f"{o.median:.2f} s", f"{o.share_of_floor:.0%}", f"{o.share_of_best:.0%}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _growth(curves: Sequence[Curve]) -> list[str]:
    if not curves:
        return []
    lines = [
        "| what grows | in | at | seconds | tokens read | least | share of the floor | outside the model | exponent |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for curve in curves:
        exponents = ("", *(f"{value:.2f}" for value in slope(curve)))
        for x, o, exponent in zip(curve.x, curve.points, exponents, strict=True):
            first = x == curve.x[0]
            cells = (
                curve.axis if first else "", curve.summary if first else "", f"{x:,}", f"{quickest(o):.2f}",
                f"{o.forwarded_tokens:,}", f"{o.least_tokens:,}", f"{o.share_of_floor:.0%}",
                f"{o.share_beside_scoring:.1%}", exponent,
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return [
        "## Growth",
        "Seconds are those of the fastest run. Time outside the model is spent on planning, rendering and the method "
        "itself. The exponent is that of the growth in time from the line before; 1 means proportional.",
        "![Time against evaluations, features and words of the prompt](growth.png)",
        "\n".join(lines),
    ]


def _memory(found: Findings) -> list[str]:
    peaks = [c.peak for case in found.compared for c in case.contenders if c.peak]
    if not peaks:
        return []
    texts = [
        "Memory in the first table is the peak of a separate process that did the work once, beyond the "
        f"{peaks[0].loaded / 2**20:,.0f} MiB or so that it held after loading the model."
    ]
    if found.many_rows:
        texts.append(
            f"2,048 evaluations of the document took {found.many_rows.beyond / 2**20:,.0f} MiB beyond the memory held "
            "after loading. They ran on a random Llama with two narrow layers and the same tokenizer and vocabulary."
        )
    return ["## Memory", *texts]


def _starts(found: Mapping[str, float] | None) -> list[str]:
    if not found:
        return []
    rows = [f"| `{name}` | {seconds:.2f} |" for name, seconds in found.items()]
    return ["## Start", "\n".join(["| start | median s |", "|---|---:|", *rows])]


def readme_table(compared: Iterable[Compared]) -> str:
    """Table of the main ratios."""
    lines = [
        "| work | apportion | share of the floor | peer | time | ratio | evaluations |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for case in compared:
        ours = case.contenders[0]
        for each in case.contenders[1:]:
            if each.seconds:
                name = each.who + (" (wrong values)" if each.wrong else "")
                lines.append(
                    f"| {case.ours.summary} | {ours.median:.2f} s | {case.ours.share_of_floor:.0%} | {name} | "
                    f"{each.median:.1f} s | {_ratio(each.median / ours.median)} × | "
                    f"{case.ours.evaluations} : {each.read.rows} |"
                )
    return "\n".join(lines)


def refresh_readme(readme: Path, compared: Iterable[Compared]) -> None:
    """Replace the table between the marks in the README."""
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{readme_table(compared)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")

"""All benchmarks that need a GPU: ``python -m benchmarks.gpu --out benchmarks/results``.

Without a GPU, it writes the same tables with "not measured". ``--tiny`` runs everything on small shapes to check that
it works; without a GPU, in Triton's interpreter.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from benchmarks.kernels.timing import Contender

PACKAGES = ("torch", "triton", "transformers", "captum", "liger-kernel", "cut-cross-entropy")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the page, and save it if ``--out`` is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="kernels and whole runs on a GPU")
    parser.add_argument("--out", type=Path, help="folder for gpu.md (default: print only)")
    parser.add_argument("--tiny", action="store_true", help="small shapes, also on a CPU; the numbers are meaningless")
    arguments = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu" if arguments.tiny else None
    if device is None:
        print(f"This PyTorch ({torch.__version__}) finds no CUDA device, so nothing is measured.", file=sys.stderr)
    if device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")
    text = page(device, tiny=arguments.tiny)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "gpu.md").write_text(text, encoding="utf-8")
    return 0


def page(device: str | None, *, tiny: bool) -> str:
    """Render the page with all tables.

    Args:
        device: device to measure on; ``None`` to measure nothing.
        tiny: use small shapes.
    """
    # Kernels are defined on import, so TRITON_INTERPRET must be set before.
    from benchmarks.kernels import attention, head, runs

    lines = ["# On a GPU", "", _machine(device), ""]
    lines += ["## Log-probabilities from hidden states", "", HEAD, ""]
    for shape in head.TINY if tiny else head.SHAPES:
        _say(f"head {shape}")
        found = head.compare_heads(shape, device) if device else unmeasured(head.CONTENDERS)
        title = f"{shape.rows:,} rows, D = {shape.width:,}, V = {shape.vocabulary:,}, {_name(shape.dtype)}"
        lines += [f"**{title}**", "", _kernel_table(found), ""]
    lines += ["## Attention with a shared prefix", "", ATTENTION, ""]
    for case in attention.TINY if tiny else attention.SHAPES:
        _say(f"attention {case}")
        title = f"N = {case.rows}, P = {case.prefix:,}, suffixes of {case.suffix}, {_name(case.dtype)}"
        found = attention.compare_attention(case, device) if device else unmeasured(attention.CONTENDERS)
        lines += [f"**{title}**", "", _kernel_table(found), ""]
    lines += ["## Whole runs", "", RUNS, ""]
    for work in runs.TINY if tiny else runs.RUNS:
        _say(work.name)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        unknown = (runs.Ran(one, 0.0, None) for one in unmeasured(runs.CONTENDERS))
        ran = runs.run(work, device, dtype) if device else unknown
        size = f"{work.rows:,} × ({work.shared + work.own} + {work.targets}) tokens, {work.shared} of them shared"
        lines += [f"**{work.name}**, {_name(dtype)}: {size}", "", _run_table(ran), ""]
    return "\n".join(lines)


HEAD = """Medians, with the 20th and 80th percentile in brackets. Memory excludes the inputs. The error is the largest
difference from fp64 on the same inputs, over 64 rows. The first line is the matrix product alone, whose result is
discarded."""
ATTENTION = """The kernel reads one copy of the prefix. PyTorch's attention needs one for every row, and a mask."""
RUNS = """Random weights. The share is the minimum arithmetic (each distinct prefix once), divided by the time and by
the measured rate of matrix products. Captum's time is extrapolated from a few evaluations."""


def unmeasured(names: Iterable[str]) -> Iterator[Contender]:
    """Table rows for a measurement that was not made."""
    # Not at the top, because this import defines kernels; see ``page``.
    from benchmarks.kernels.timing import Contender

    return (Contender(name, None, note="not measured") for name in names)


def _machine(device: str | None) -> str:
    if device is None:
        return "**Not measured**: no GPU was available. Run `python -m benchmarks.gpu --out benchmarks/results`."
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU, interpreted: the numbers are meaningless"
    return f"{name}; {', '.join(f'{package} {_version(package)}' for package in PACKAGES)}."


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _kernel_table(found: Iterable) -> str:
    lines = ["| implementation | ms | × the first | memory | error |", "|---|---:|---:|---:|---:|"]
    first = None
    for one in found:
        if one.timed is None:
            lines.append(f"| {one.name} | {one.note} | | | |")
            continue
        first = first or one.timed.median
        extra = "" if one.timed.extra_bytes is None else f"{one.timed.extra_bytes / 2**20:,.0f} MiB"
        spread = f"{one.timed.median * 1e3:.2f} ({one.timed.low * 1e3:.2f}–{one.timed.high * 1e3:.2f})"
        error = "" if one.error is None else f"{one.error:.0e}"
        lines.append(f"| {one.name} | {spread} | {one.timed.median / first:.2f} | {extra} | {error} |")
    return "\n".join(lines)


def _run_table(found: Iterable) -> str:
    lines = ["| implementation | seconds | evaluations/s | share | memory | notes |", "|---|---:|---:|---:|---:|---|"]
    for ran in found:
        one = ran.contender
        if one.timed is None:
            lines.append(f"| {one.name} | | | | | {one.note} |")
            continue
        extra = "" if one.timed.extra_bytes is None else f"{one.timed.extra_bytes / 2**20:,.0f} MiB"
        share = "" if ran.share is None else f"{ran.share:.0%}"
        lines.append(f"| {one.name} | {one.timed.median:.2f} | {ran.rate:.1f} | {share} | {extra} | {one.note} |")
    return "\n".join(lines)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _say(what: str) -> None:
    print(f"{what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The command ``python -m benchmarks.speed``."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed import plots, report
from benchmarks.speed.cases import CASES
from benchmarks.speed.comparing import Effort, compare, opened
from benchmarks.speed.growth import curves
from benchmarks.speed.memory import Peak
from benchmarks.speed.report import Findings
from benchmarks.speed.starts import starts

ROOT = Path(__file__).parents[2]


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="Time apportion and its peers.")
    parser.add_argument("--case", action="append", choices=list(CASES), help="case to run; repeatable")
    parser.add_argument("--repeats", type=int, default=6, help="runs of apportion (fewer if they are long)")
    parser.add_argument("--no-memory", action="store_true", help="skip memory peaks, each of which takes another run")
    parser.add_argument("--no-growth", action="store_true", help="skip the growth curves")
    parser.add_argument("--long", action="store_true", help="include cases that take very long")
    parser.add_argument("--out", type=Path, help="folder for speed.md and the plots (default: print only)")
    parser.add_argument("--readme", action="store_true", help="also write the table to the README")
    return parser.parse_args(argv)


def _command(arguments: argparse.Namespace) -> str:
    """The command line, without the output options."""
    words = [word for name in arguments.case or () for word in ("--case", name)]
    words += [flag for flag in ("--no-memory", "--no-growth", "--long") if vars(arguments)[flag[2:].replace("-", "_")]]
    return shlex.join(["python", "-m", "benchmarks.speed", *words, "--repeats", str(arguments.repeats)])


def many_rows() -> Peak:
    """Peak memory of many rows, measured in a separate process."""
    command = [sys.executable, "-m", "benchmarks.speed.many_rows"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    loaded, beyond = map(int, done.stdout.split())
    return Peak(loaded, beyond)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and save; returns 1 if values differ that must agree."""
    arguments = parsed(argv)
    effort = Effort(repeats=arguments.repeats, memory=not arguments.no_memory, long=arguments.long)
    chosen = [CASES[name] for name in arguments.case] if arguments.case else list(CASES.values())
    explainer, watcher = opened()
    compared = []
    with explainer:
        for case in chosen:
            if effort.long or not case.long or arguments.case:
                compared.append(compare(case, explainer, watcher, effort))
                print(report.readme_table(compared[-1:]), file=sys.stderr, flush=True)
        grown = [] if arguments.no_growth else list(curves(explainer, watcher, repeats=3))
    found = Findings(
        compared,
        grown,
        starts(),
        many_rows() if effort.memory else None,
        _command(arguments),
    )
    text = report.page(found)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "speed.md").write_text(text, encoding="utf-8")
        plots.draw_speed(compared, arguments.out / "speed.png")
        if grown:
            plots.draw_growth(grown, arguments.out / "growth.png")
    if arguments.readme:
        report.refresh_readme(ROOT / "README.md", compared)
    wrong = [f"{case.ours.case}, {c.who}" for case in compared for c in case.contenders if not c.agrees]
    if wrong:
        print(f"values differ by more than the tolerance: {'; '.join(wrong)}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

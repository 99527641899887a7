"""Peak memory of one contender's work, in a separate process, beyond the memory held with the model loaded.

.venv/bin/python -m benchmarks.speed.memory ablation "Captum, correct path"
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OURS", "Peak", "peak_in_own_process", "peak_of"]

OURS = "apportion"
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Peak:
    """Memory in bytes.

    Attributes:
        loaded: memory held with the model loaded and everything prepared.
        beyond: peak memory during the work, beyond ``loaded``.
    """

    loaded: int
    beyond: int


def peak_of(work: Callable[[], object]) -> Peak:
    """Run the work in this process and measure its peak; earlier peaks are cleared where Linux allows it."""
    loaded = _resident("VmRSS") or _highest()
    try:
        CLEAR.write_text("5")
    except OSError:
        loaded = _highest()
    work()
    return Peak(loaded, max(0, (_resident("VmHWM") or _highest()) - loaded))


def peak_in_own_process(case: str, who: str) -> Peak | None:
    """Measure the peak in a new process; ``None`` if the work failed there."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", case, who]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"memory of {who}, {case}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _resident(name: str) -> int | None:
    """A line of the process status in bytes; ``None`` if it is not available."""
    if not STATUS.exists():
        return None
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024 if name in lines else None


def _highest() -> int:
    """Peak since the process started, including loading."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(case_name: str, who: str) -> None:
    """Load the model, do the work, and print the peak as JSON."""
    from benchmarks.speed.cases import CASES

    import apportion as ap

    case = CASES[case_name]
    explainer = ap.Explainer("smollm2", progress=False)
    run = (lambda: case.work.run(explainer)) if who == OURS else case.peers[who].prepare(explainer.session)
    peak = peak_of(run)
    print(json.dumps({"loaded": peak.loaded, "beyond": peak.beyond}))


if __name__ == "__main__":
    main(*sys.argv[1:])

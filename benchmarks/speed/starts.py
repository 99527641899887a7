"""Start-up time of new processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

__all__ = ["starts"]

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import apportion": ["-c", "import apportion"],
    "apportion --help": ["-m", "apportion", "--help"],
    "apportion methods": ["-m", "apportion", "methods"],
}


def starts(repeats: int = 5) -> dict[str, float]:
    """Median seconds of new processes; the first is Python itself."""
    found = {}
    for name, words in COMMANDS.items():
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            seconds.append(time.perf_counter() - started)
        found[name] = statistics.median(seconds)
    return found

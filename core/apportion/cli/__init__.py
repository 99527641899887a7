"""The command line: ``apportion``.

Exit codes: 0; 1 for a problem that one line explains; 2 for a command that cannot be understood; 130 after Ctrl-C.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["main"]

SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Settings by which users decide how long idle OpenMP threads spin."""
SPIN_COUNT = "2000"
"""Spins of an idle thread before it sleeps, instead of 300,000, which take the core from other processes.

Measured on 2 cores, medians: beside one busy process a run took 1.0 s instead of 1.5 s; alone another took 5.3 s
instead of 5.0 s. Without any spinning (OMP_WAIT_POLICY=passive) these are 0.9 s and 5.6 s.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``apportion``; those of the process if ``None``.

    Returns:
        The exit code.
    """
    # Read by GNU OpenMP when PyTorch is first imported.
    if not any(name in os.environ for name in SPINNING):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    # Imported here, so that Ctrl-C is handled from the first moment on.
    try:
        from apportion.cli.app import app
        from apportion.cli.running import run

        return run(app, argv)
    except KeyboardInterrupt:
        from apportion.cli.running import report_interrupt

        return report_interrupt()

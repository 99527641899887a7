"""The command line: ``apportion``.

Exit codes: 0; 1 for a problem that one line explains; 2 for a command that cannot be understood; 130 after Ctrl-C.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["main"]

SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Settings by which users decide what OpenMP threads do while they wait."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``apportion``; those of the process if ``None``.

    Returns:
        The exit code.
    """
    # Threads that wait for work would spin, and take the cores from whatever else runs: with one more busy process a
    # run took up to ten times as long. Read when PyTorch is first imported.
    if not any(name in os.environ for name in SPINNING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # Imported here, so that Ctrl-C is handled from the first moment on.
    try:
        from apportion.cli.app import app
        from apportion.cli.running import run

        return run(app, argv)
    except KeyboardInterrupt:
        from apportion.cli.running import report_interrupt

        return report_interrupt()

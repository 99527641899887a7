"""The command line: ``apportion``.

Exit codes: 0; 1 for a problem that one line explains; 2 for a command that cannot be understood; 130 after Ctrl-C.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``apportion``; those of the process if ``None``.

    Returns:
        The exit code.
    """
    # Imported here, so that Ctrl-C is handled from the first moment on.
    try:
        from apportion.cli.app import app
        from apportion.cli.running import run

        return run(app, argv)
    except KeyboardInterrupt:
        from apportion.cli.running import report_interrupt

        return report_interrupt()

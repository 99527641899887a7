"""Running the app: what becomes of errors, Ctrl-C and closed pipes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from apportion.errors import ApportionError

__all__ = ["InterruptedDeliveryError", "report_interrupt", "run"]

FAILED = 1
INTERRUPTED = 130


class InterruptedDeliveryError(Exception):
    """Ctrl-C when some of the files had been written; the message says which."""


def run(argv: Sequence[str] | None) -> int:
    """Run the app: one line for a problem that is the user's to mend, a traceback for a bug only."""
    from apportion.cli.app import app

    _never_fail_on_characters()
    try:
        app(args=None if argv is None else list(argv), prog_name="apportion")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        return report_interrupt() if code == INTERRUPTED else _flushed(code)
    except InterruptedDeliveryError as error:
        return report_interrupt(str(error))
    except ApportionError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return _flushed(FAILED)
    return _flushed(0)


def report_interrupt(written: str = "nothing was written") -> int:
    """Say that Ctrl-C ended the run, and what is left of it."""
    print(f"interrupted; {written}", file=sys.stderr)  # noqa: T201
    return INTERRUPTED


def _flushed(code: int) -> int:
    """The exit code, 1 if stdout did not take everything: its reader has gone, or a disk is full."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"error: Cannot write to stdout: {error.strerror}.", file=sys.stderr)  # noqa: T201
        # Python flushes stdout once more when it ends; there has to be somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _never_fail_on_characters() -> None:
    """A terminal that cannot show a character gets ``?``, and the result."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")

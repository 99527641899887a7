"""Running the app: errors, Ctrl-C, closed pipes and full disks."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

import typer

from apportion.cli.exits import FAILED, INTERRUPTED, InterruptedDeliveryError
from apportion.cli.wording import in_shell_words
from apportion.errors import ApportionError

__all__ = ["report_interrupt", "run"]


def run(app: typer.Typer, argv: Sequence[str] | None) -> int:
    """Run the app: one line for a problem that the user can fix, a traceback for a bug only.

    Args:
        app: the commands.
        argv: the words after the program's name; those of the process if ``None``.

    Returns:
        The exit code.
    """
    _prepare_streams()
    try:
        with _plain_warnings():
            app(args=None if argv is None else list(argv), prog_name="apportion")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        if code == INTERRUPTED:
            return report_interrupt()
    except InterruptedDeliveryError as error:
        return report_interrupt(str(error))
    except ApportionError as error:
        code = _failed(in_shell_words(str(error)))
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        code = _failed(f"Cannot read or write{place}: {error.strerror or error}.")
    return _finished(code)


def report_interrupt(written: str = "no result was written") -> int:
    """Report that Ctrl-C ended the run, and what it had written."""
    print(f"interrupted; {written}", file=sys.stderr)  # noqa: T201
    return INTERRUPTED


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings as one line each, without their place in the code."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=file or sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _failed(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    return FAILED


def _finished(code: int) -> int:
    """The exit code: 1 where stdout did not take everything."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python flushes stdout once more at its end, and needs somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == 0 and not isinstance(error, BrokenPipeError):
            return _failed(f"Cannot write to stdout: {error.strerror}.")
        return FAILED
    return code


def _prepare_streams() -> None:
    """Let closed streams swallow what is written, and let stdout show ``?`` for characters that it lacks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")

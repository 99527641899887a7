"""Running the app: what becomes of errors, Ctrl-C and closed pipes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from apportion.errors import ApportionError

__all__ = ["Root", "report_interrupt", "run"]

FAILED = 1
INTERRUPTED = 130


class Root(TyperGroup):
    """The outermost command: turns errors that are the user's to mend into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except ApportionError as error:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
            raise typer.Exit(FAILED) from error
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(report_interrupt(*interrupt.args)) from interrupt


def run(argv: Sequence[str] | None) -> int:
    """Run the app, and leave no traceback of a pipe that its reader closed."""
    from apportion.cli.app import app

    _never_fail_on_characters()
    try:
        code = _exit_code_of(app, argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more when it ends; there has to be somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def report_interrupt(written: str = "nothing was written") -> int:
    """Say that Ctrl-C ended the run, and what is left of it."""
    print(f"interrupted; {written}", file=sys.stderr)  # noqa: T201
    return INTERRUPTED


def _exit_code_of(app: typer.Typer, argv: Sequence[str] | None) -> int:
    try:
        app(args=None if argv is None else list(argv), prog_name="apportion")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    return 0


def _never_fail_on_characters() -> None:
    """A terminal that cannot show a character gets ``?``, and the result."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")

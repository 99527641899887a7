"""Texts from files and stdin."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from apportion import files
from apportion.cli.parse import usage_error
from apportion.errors import InputError

__all__ = ["check_named", "read_text", "without_last_line_break"]

STDIN = Path("-")


def read_text(what: str, path: Path | None) -> str:
    """Read the text of a file, or of stdin without one; ``-`` is stdin, too.

    Args:
        what: name of the text in messages.
        path: path of the file; ``None`` for stdin.

    Raises:
        InputError: it cannot be read, is not UTF-8 text, or is blank.
    """
    path = None if path == STDIN else path
    try:
        text = _stdin(what) if path is None else files.read_text(path, f"The {what} file {path}")
    except OSError as error:
        source = "from stdin" if path is None else f"file {path}"
        raise InputError(f"Cannot read the {what} {source}: {error.strerror or error}.") from error
    if not text.strip():
        source = "stdin" if path is None else f"the file {path}"
        raise InputError(f"The {what} is empty: there is no text {'on' if path is None else 'in'} {source}.")
    return io.StringIO(text, newline=None).getvalue()  # with "\n" for all line breaks


def check_named(flag: str, path: str | Path | None) -> None:
    """Refuse the empty name of a file, which would be taken for the current folder.

    Raises:
        typer.BadParameter: the name is empty.
    """
    if path is not None and (not str(path) or path == Path()):
        usage_error(flag, "the name of the file is empty.")


def _stdin(what: str) -> str:
    if sys.stdin is None:
        raise InputError(f"The {what} is to be read from stdin ('-'), and stdin is closed.")
    # As for files: UTF-8, whatever the locale is.
    raw = getattr(sys.stdin, "buffer", None)
    if raw is None:
        return sys.stdin.read().removeprefix(files.BOM)
    return files.decoded(raw.read(), f"The {what} on stdin")


def without_last_line_break(text: str) -> str:
    """Drop the line break that editors and ``echo`` put at the end of a text."""
    return text.removesuffix("\n").removesuffix("\r")

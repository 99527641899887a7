"""Texts from files and stdin."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from apportion import files
from apportion.errors import InputError

__all__ = ["read_text", "without_last_line_break"]


def read_text(what: str, path: Path | None) -> str:
    """Read the text of a file, or of stdin without one.

    Args:
        what: name of the text in messages.
        path: path of the file; ``None`` for stdin.

    Raises:
        InputError: it cannot be read, or is not UTF-8 text.
    """
    try:
        text = _stdin(what) if path is None else files.read_text(path, f"The {what} file {path}")
    except OSError as error:
        source = "from stdin" if path is None else f"file {path}"
        raise InputError(f"Cannot read the {what} {source}: {error.strerror or error}.") from error
    return io.StringIO(text, newline=None).getvalue()  # with "\n" for all line breaks


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

"""Texts from files and stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from apportion.errors import InputError

__all__ = ["read_text", "without_last_line_break"]


def read_text(what: str, path: Path | None) -> str:
    """Read the text of a file, or of stdin without one.

    Args:
        what: the name of the text in messages.
        path: of the file.

    Raises:
        InputError: it cannot be read, or is not UTF-8 text.
    """
    try:
        if path is not None:
            return path.read_text(encoding="utf-8")
        if sys.stdin is None:
            raise InputError(f"The {what} is to be read from stdin ('-'), and stdin is closed.")
        return sys.stdin.read()
    except OSError as error:
        raise InputError(f"Cannot read the {what} file {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        source = "stdin" if path is None else str(path)
        raise InputError(f"The {what} in {source} is not {error.encoding} text: {error.reason}.") from error


def without_last_line_break(text: str) -> str:
    """Drop the line break that editors and ``echo`` put at the end of a text."""
    return text.removesuffix("\n").removesuffix("\r")

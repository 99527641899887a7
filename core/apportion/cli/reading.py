"""Texts from files and stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from apportion.errors import InputError

__all__ = ["read_text", "without_last_line_break"]


def read_text(what: str, path: Path | None) -> str:
    """The text of a file, or of stdin if there is none.

    Raises:
        InputError: it cannot be read, or is no UTF-8 text.
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
    """Editors and ``echo`` end a text with a line break that nobody means as part of a prompt."""
    return text.removesuffix("\n").removesuffix("\r")

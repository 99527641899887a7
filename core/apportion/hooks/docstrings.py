"""Parsing of docstrings in Google, NumPy and Sphinx styles: the description, and notes on parameters."""

from __future__ import annotations

import inspect
from typing import Any

from docstring_parser import ParseError, parse

__all__ = ["description", "parameter_notes"]


def description(thing: Any) -> str:
    """The part of a docstring before its first section (``Args:``, ``Raises:``, …)."""
    try:
        found = parse(_text(thing))
    except ParseError:
        return _text(thing)
    # The first line is called a short description even where its sentence goes on in the next one.
    between = "\n\n" if found.blank_after_short_description else "\n"
    parts = (found.short_description, found.long_description)
    return between.join(part for part in parts if part).strip()


def parameter_notes(function: Any) -> dict[str, str]:
    """The description of each parameter, on one line each; empty if there is no such section."""
    try:
        found = parse(_text(function))
    except ParseError:
        return {}
    return {note.arg_name: " ".join((note.description or "").split()) for note in found.params}


def _text(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").replace("``", "`")

"""What a docstring says about a function's parameters."""

from __future__ import annotations

import inspect
import re
from typing import Any

__all__ = ["description", "parameter_notes"]

_SECTION = re.compile(r"^[A-Z][a-z]+:$")


def description(thing: Any) -> str:
    """A docstring up to its first section (``Args:``, ``Raises:``, …)."""
    lines = (inspect.getdoc(thing) or "").replace("``", "`").splitlines()
    end = next((i for i, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    return "\n".join(lines[:end]).strip()


def parameter_notes(function: Any) -> dict[str, str]:
    """The texts under ``Args:``, one for each parameter; nothing if there is no such section."""
    lines = (inspect.getdoc(function) or "").replace("``", "`").splitlines()
    if "Args:" not in lines:
        return {}
    notes: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Args:") + 1 :]:
        if line and not line.startswith(" "):
            break
        entry = re.match(r"^ {4}(\w+)(?: \([^)]*\))?: ?(.*)$", line)
        if entry:
            name = entry[1]
            notes[name] = entry[2]
        elif name and line.strip():
            notes[name] += f" {line.strip()}"
    return notes

"""Values of flags: pairs, numbers, sizes. Every refusal is a usage error that names the flag."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

__all__ = [
    "json_pairs",
    "json_pairs_by_owner",
    "memory_size",
    "number",
    "pair",
    "split_names",
    "token_ids",
    "usage_error",
]

_BYTES = {"": 1, "b": 1}
_BYTES |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
_BYTES |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}
_PYTHON_WORDS = {"True": True, "False": False, "None": None}


def usage_error(flag: str, message: str) -> NoReturn:
    """Refuse a command line.

    Raises:
        typer.BadParameter: always; the process ends with exit code 2.
    """
    raise typer.BadParameter(message, param_hint=flag)


def pair(flag: str, text: str, example: str) -> tuple[str, str]:
    """Split ``name=value``; the value may have more ``=`` and is taken as it is."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        usage_error(flag, f"{text!r} is not of the form NAME=VALUE; write {flag} {example}.")
    return name.strip(), value


def json_pairs(flag: str, texts: Sequence[str], example: str) -> dict[str, Any]:
    """Read ``key=value`` pairs with values of any type."""
    found: dict[str, Any] = {}
    for text in texts:
        name, value = pair(flag, text, example)
        name = name.replace("-", "_")
        if name in found:
            usage_error(flag, f"{name!r} is given twice: {found[name]!r} and {value!r}.")
        found[name] = json_or_text(flag, value)
    return found


def json_pairs_by_owner(flag: str, texts: Sequence[str], example: str) -> dict[str, dict[str, Any]]:
    """Read ``owner.key=value`` pairs, such as the options of several metrics, by owner."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in json_pairs(flag, texts, example).items():
        owner, _, option = name.partition(".")
        if not option:
            usage_error(flag, f"{name!r} does not name an option; write NAME.OPTION=VALUE: {example}.")
        found.setdefault(owner, {})[option] = value
    return found


def json_or_text(flag: str, value: str) -> Any:
    """Read a text as JSON, or else as it is; Python's ``True``, ``False`` and ``None`` count as JSON."""
    if value in _PYTHON_WORDS:
        return _PYTHON_WORDS[value]
    try:
        return json.loads(value, parse_constant=_refuse_constant)
    except ValueError as error:
        if value[:1] in ("[", "{", '"'):
            usage_error(flag, f"{value!r} starts like JSON but is not valid JSON: {error}.")
        return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def split_names(flag: str, text: str, example: str) -> tuple[str, ...]:
    """Read ``a,b`` as names."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        usage_error(flag, f"{text!r} has an empty name; write {flag} {example}.")
    return names


def token_ids(flag: str, text: str) -> list[int]:
    """Read ``1,2,3`` as token ids."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        usage_error(flag, f"{text!r} is not a list of token ids; write whole numbers separated by commas: 504,2471.")


def number(flag: str, text: str, kind: type[int] | type[float], least: float | None = None) -> int | float:
    """Read a number, which may have a lower bound."""
    what = "a whole number" if kind is int else "a number"
    try:
        found = kind(text)
    except ValueError:
        example = ", such as 100" if kind is int else ", such as 0.05"
        usage_error(flag, f"{text!r} is not {what}; write it in digits{example}.")
    if least is not None and not found >= least:
        usage_error(flag, f"{text} is too small; write {what} of at least {least:g}.")
    return found


def memory_size(flag: str, text: str) -> int:
    """Read ``512MiB``, ``2GB`` or ``1000000`` as bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in _BYTES:
        usage_error(
            flag, f"{text!r} is not an amount of memory; write a number of bytes, or a number with a unit: 512MiB, 2GB."
        )
    size = int(float(match[1]) * _BYTES[match[2]])
    if size < 1:
        usage_error(flag, f"{text!r} is not enough memory; write at least a few MiB, such as 256MiB.")
    return size
